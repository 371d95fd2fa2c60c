// See gloo.h.
#include "gloo.h"

#include <gloo/allgatherv.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/context.h>
#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/types.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../runtime/dtype.h"

namespace {

// Ranks that are connected each to each.
class Mesh : public gloo::Context {
 public:
  Mesh(int rank, int size, const char* host, std::chrono::milliseconds timeout) : gloo::Context(rank, size) {
    setTimeout(timeout);
    gloo::transport::tcp::attr attributes;
    attributes.hostname = host;
    device_ = gloo::transport::tcp::CreateDevice(attributes);
    transportContext_ = device_->createContext(rank, size);
    transportContext_->setTimeout(timeout);
  }

  // For each other rank, where it connects to.
  std::vector<char> listen() {
    std::vector<char> addresses(size_t(size) * gloo::transport::Address::kMaxByteSize);
    for (int other = 0; other < size; ++other) {
      if (other == rank) continue;
      const std::vector<char> address = transportContext_->createPair(other)->address().bytes();
      MST_CHECK(address.size() <= gloo::transport::Address::kMaxByteSize, "an address of ", address.size(), " bytes");
      length_ = address.size();
      std::memcpy(&addresses[size_t(other) * gloo::transport::Address::kMaxByteSize], address.data(), address.size());
    }
    return addresses;
  }

  // addresses: what each rank's listen() returned.
  void connect(const char* addresses) {
    const size_t bytes = size_t(size) * gloo::transport::Address::kMaxByteSize;
    for (int other = 0; other < size; ++other) {
      if (other == rank) continue;
      const char* const address = addresses + size_t(other) * bytes + size_t(rank) * gloo::transport::Address::kMaxByteSize;
      transportContext_->getPair(other)->connect({address, address + length_});
    }
  }

 private:
  size_t length_ = 0;  // of an address
};

void sum_bf16(void* to, const void* a, const void* b, size_t count) {
  for (size_t i = 0; i < count; ++i)
    static_cast<mst::bf16*>(to)[i] = mst::bf16(float(static_cast<const mst::bf16*>(a)[i]) + float(static_cast<const mst::bf16*>(b)[i]));
}

template <class T>
void sum(void* to, const void* a, const void* b, size_t count) {
  for (size_t i = 0; i < count; ++i) static_cast<T*>(to)[i] = static_cast<const T*>(a)[i] + static_cast<const T*>(b)[i];
}

// Slot of messages that all_to_all sends; the others are of Gloo's own collectives.
constexpr std::uint8_t all_to_all_slot = 0x40;

template <class Call>
bool succeeds(MstGlooProblem* problem, const Call& call) {
  const auto tell = [&](const char* text) { problem->text[std::string(text).copy(problem->text, sizeof problem->text - 1)] = '\0'; };
  try {
    call();
    return true;
  } catch (const std::exception& error) {
    tell(error.what());
  } catch (...) {
    tell("an unknown error");
  }
  return false;
}

}  // namespace

struct MstGloo {
  std::shared_ptr<Mesh> mesh;
  std::vector<char> address;

  template <class T>
  void all_reduce(void* data, size_t count, const gloo::AllreduceOptions::Func& add) {
    gloo::AllreduceOptions options(mesh);
    options.setOutput(static_cast<T*>(data), count);
    options.setReduceFunction(add);
    options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);  // each sum is made once and sent: the same bits everywhere
    gloo::allreduce(options);
  }

  // A piece of every part at a time: each rank sends it to the part's rank, which adds up what has come.
  template <class T>
  void reduce_scatter(T* data, size_t count, size_t part) {
    using Sum = std::conditional_t<std::is_same_v<T, mst::bf16>, float, T>;
    const size_t size = size_t(mesh->size), rank = size_t(mesh->rank), piece = std::min(part, size_t(1) << 16);
    std::vector<T> sent(size * piece), received(size * piece);
    const auto length = [&](size_t r, size_t first) {  // of the piece of rank r's part
      const size_t begin = r * part + first, end = std::min({count, (r + 1) * part, begin + piece});
      return begin < end ? end - begin : 0;
    };
    for (size_t first = 0; first < part; first += piece) {
      for (size_t r = 0; r < size; ++r)
        if (const size_t n = length(r, first)) std::copy_n(data + r * part + first, n, &sent[r * piece]);
      gloo::AlltoallOptions options(mesh);
      options.setInput(reinterpret_cast<char*>(sent.data()), sent.size() * sizeof(T));
      options.setOutput(reinterpret_cast<char*>(received.data()), received.size() * sizeof(T));
      gloo::alltoall(options);
      T* const to = data + rank * part + first;
      for (size_t i = 0, n = length(rank, first); i < n; ++i) {
        Sum sum = static_cast<Sum>(received[i]);
        for (size_t r = 1; r < size; ++r) sum += static_cast<Sum>(received[r * piece + i]);
        to[i] = T(sum);
      }
    }
  }

  void all_gather(char* data, size_t bytes, size_t part) {
    std::vector<size_t> parts(size_t(mesh->size));
    for (size_t r = 0; r < parts.size(); ++r) parts[r] = std::min(bytes, (r + 1) * part) - std::min(bytes, r * part);
    gloo::AllgathervOptions options(mesh);
    options.setOutput(data, parts);
    gloo::allgatherv(options);
  }

  void all_to_all(char* from, char* to, size_t bytes, int first, int size) {
    MST_CHECK(first >= 0 && size > 0 && first + size <= mesh->size && mesh->rank >= first && mesh->rank < first + size, "ranks ", first,
              " to ", first + size - 1, " on rank ", mesh->rank, " of ", mesh->size);
    const int own = mesh->rank - first;
    if (bytes == 0) return;
    std::memcpy(to + size_t(own) * bytes, from + size_t(own) * bytes, bytes);
    const auto sent = mesh->createUnboundBuffer(from, bytes * size_t(size));
    const auto received = mesh->createUnboundBuffer(to, bytes * size_t(size));
    const gloo::Slot slot = gloo::Slot::build(all_to_all_slot, 0);
    // In turns, so that not all send to the same rank at once.
    for (int i = 1; i < size; ++i) {
      const int next = (own + i) % size, before = (own + size - i) % size;
      sent->send(first + next, slot, size_t(next) * bytes, bytes);
      received->recv(first + before, slot, size_t(before) * bytes, bytes);
    }
    for (int i = 1; i < size; ++i) {
      MST_CHECK(sent->waitSend() && received->waitRecv(), "was aborted");
    }
  }
};

#define MST_EXPORT __attribute__((visibility("default")))

MST_EXPORT bool mst_gloo_open(int rank, int size, const char* host, double timeout_seconds, MstGloo** group, const char** address,
                              std::size_t* address_bytes, MstGlooProblem* problem) {
  return succeeds(problem, [&] {
    auto made = std::make_unique<MstGloo>();
    const auto timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_seconds * 1000));
    made->mesh = std::make_shared<Mesh>(rank, size, host, timeout);
    made->address = made->mesh->listen();
    *address = made->address.data();
    *address_bytes = made->address.size();
    *group = made.release();
  });
}

MST_EXPORT bool mst_gloo_connect(MstGloo* group, const char* addresses, std::size_t address_bytes, MstGlooProblem* problem) {
  return succeeds(problem, [&] {
    MST_CHECK(address_bytes == group->address.size(), "addresses of ", address_bytes, " bytes, needs ", group->address.size());
    group->mesh->connect(addresses);
  });
}

MST_EXPORT bool mst_gloo_all_reduce(MstGloo* group, void* data, std::size_t count, MstGlooDtype dtype, MstGlooProblem* problem) {
  return succeeds(problem, [&] {
    if (count == 0) return;
    switch (dtype) {
      case mst_gloo_f32:
        return group->all_reduce<float>(data, count, sum<float>);
      case mst_gloo_f64:
        return group->all_reduce<double>(data, count, sum<double>);
      case mst_gloo_bf16:
        return group->all_reduce<mst::bf16>(data, count, sum_bf16);
    }
  });
}

MST_EXPORT bool mst_gloo_reduce_scatter(MstGloo* group, void* data, std::size_t count, std::size_t part, MstGlooDtype dtype,
                                        MstGlooProblem* problem) {
  return succeeds(problem, [&] {
    switch (dtype) {
      case mst_gloo_f32:
        return group->reduce_scatter(static_cast<float*>(data), count, part);
      case mst_gloo_f64:
        return group->reduce_scatter(static_cast<double*>(data), count, part);
      case mst_gloo_bf16:
        return group->reduce_scatter(static_cast<mst::bf16*>(data), count, part);
    }
  });
}

MST_EXPORT bool mst_gloo_all_gather(MstGloo* group, void* data, std::size_t bytes, std::size_t part, MstGlooProblem* problem) {
  return succeeds(problem, [&] {
    if (bytes > 0) group->all_gather(static_cast<char*>(data), bytes, part);
  });
}

MST_EXPORT bool mst_gloo_all_to_all(MstGloo* group, void* from, void* to, std::size_t part_bytes, int first, int size,
                                    MstGlooProblem* problem) {
  return succeeds(problem, [&] { group->all_to_all(static_cast<char*>(from), static_cast<char*>(to), part_bytes, first, size); });
}

MST_EXPORT bool mst_gloo_abort(MstGloo* group, MstGlooProblem* problem) {
  return succeeds(problem, [&] { group->mesh->closeConnections(); });
}

MST_EXPORT void mst_gloo_close(MstGloo* group) {
  MstGlooProblem problem;
  succeeds(&problem, [&] { delete group; });
}
