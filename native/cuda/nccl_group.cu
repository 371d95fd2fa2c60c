// See nccl_group.h.
#include "nccl_group.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "libraries/nccl.h"

namespace mst::cuda {
namespace {

void check_nccl(int status, const char* call, void* communicator) {
  if (status == 0) return;
  MST_FAIL("NCCL: ", call, ": ", nccl().error_text(status), ": ", nccl().last_error(communicator));
}

int dtype_of(const Tensor& x) {
  switch (x.dtype) {
    case Dtype::f32:
      return Nccl::f32;
    case Dtype::f64:
      return Nccl::f64;
    case Dtype::bf16:
      return Nccl::bf16;
    default:
      MST_FAIL("NCCL: needs a floating dtype, got ", name_of(x.dtype));
  }
}

class NcclGroup final : public ProcessGroup {
 public:
  NcclGroup(const Rank& rank, const Stream& stream) : ProcessGroup(rank.size), rank_(rank), stream_(stream) {
    check_nccl(nccl().get_unique_id(&id_), "ncclGetUniqueId", nullptr);
  }
  // Nothing may be in flight: the stream has been waited for, or the group aborted.
  ~NcclGroup() override {
    if (void* const communicator = communicator_.exchange(nullptr)) nccl().destroy(communicator);
  }

  std::string address() const override {
    return {id_.bytes, sizeof id_.bytes};
  }
  // NCCL meets at the first rank's.
  void connect(const std::vector<std::string>& addresses) override {
    MST_CHECK(addresses.front().size() == sizeof id_.bytes, "NCCL: connect: an id of ", addresses.front().size(), " bytes, needs ",
              sizeof id_.bytes);
    std::memcpy(id_.bytes, addresses.front().data(), sizeof id_.bytes);
    void* communicator = nullptr;
    check_nccl(nccl().init_rank(&communicator, rank_.size, id_, rank_.rank), "ncclCommInitRank", nullptr);
    communicator_ = communicator;
  }
  void all_reduce(const Tensor& x) override {
    void* const communicator = connected();
    const auto count = static_cast<std::size_t>(x.size());
    check_nccl(nccl().all_reduce(x.data, x.data, count, dtype_of(x), Nccl::sum, communicator, stream_.get()), "ncclAllReduce",
               communicator);
  }
  // In place, as NCCL takes it: a rank's part lies where it does in the whole.
  void reduce_scatter(const Tensor& x, std::int64_t part) override {
    void* const communicator = connected();
    if (x.size() == part * rank_.size) {
      return check_nccl(nccl().reduce_scatter(x.data, at(x, rank_.rank * part), static_cast<std::size_t>(part), dtype_of(x), Nccl::sum,
                                              communicator, stream_.get()),
                        "ncclReduceScatter", communicator);
    }
    for_parts(x, part, communicator, [&](char* own, std::size_t count, int root) {
      check_nccl(nccl().reduce(own, own, count, dtype_of(x), Nccl::sum, root, communicator, stream_.get()), "ncclReduce", communicator);
    });
  }
  void all_gather(const Tensor& x, std::int64_t part) override {
    void* const communicator = connected();
    if (x.size() == part * rank_.size) {
      return check_nccl(
          nccl().all_gather(at(x, rank_.rank * part), x.data, static_cast<std::size_t>(part), dtype_of(x), communicator, stream_.get()),
          "ncclAllGather", communicator);
    }
    for_parts(x, part, communicator, [&](char* own, std::size_t count, int root) {
      check_nccl(nccl().broadcast(own, own, count, dtype_of(x), root, communicator, stream_.get()), "ncclBroadcast", communicator);
    });
  }
  void all_to_all(const Tensor& x, const Tensor& y, int first, int size) override {
    MST_CHECK(first >= 0 && first + size <= rank_.size && rank_.rank >= first && rank_.rank < first + size, "NCCL: all_to_all: ranks ",
              first, " to ", first + size - 1, " on rank ", rank_.rank, " of ", rank_.size);
    void* const communicator = connected();
    const std::size_t count = static_cast<std::size_t>(x.size()) / static_cast<std::size_t>(size);
    const std::size_t bytes = count * size_of(x.dtype);
    check_nccl(nccl().group_start(), "ncclGroupStart", communicator);
    int status = 0;
    for (int i = 0; i < size && status == 0; ++i) {
      const std::size_t begin = static_cast<std::size_t>(i) * bytes;
      status = nccl().send(x.as<char>() + begin, count, dtype_of(x), first + i, communicator, stream_.get());
      if (status == 0) status = nccl().receive(y.as<char>() + begin, count, dtype_of(y), first + i, communicator, stream_.get());
    }
    const int end = nccl().group_end();  // also after a failure: a group that is open would take in later calls
    check_nccl(status, "ncclSend or ncclRecv", communicator);
    check_nccl(end, "ncclGroupEnd", communicator);
  }
  void abort() override {
    if (void* const communicator = communicator_.exchange(nullptr)) nccl().abort(communicator);
  }

 private:
  void* connected() const {
    void* const communicator = communicator_;
    MST_CHECK(communicator, "NCCL: the group was aborted");
    return communicator;
  }
  static char* at(const Tensor& x, std::int64_t element) {
    return static_cast<char*>(x.data) + element * static_cast<std::int64_t>(size_of(x.dtype));
  }
  // One launch for the parts of different lengths. each(begin of the part, elements, rank)
  template <class Each>
  void for_parts(const Tensor& x, std::int64_t part, void* communicator, const Each& each) {
    check_nccl(nccl().group_start(), "ncclGroupStart", communicator);
    for (int r = 0; r < rank_.size && r * part < x.size(); ++r)
      each(at(x, r * part), static_cast<std::size_t>(std::min(part, x.size() - r * part)), r);
    check_nccl(nccl().group_end(), "ncclGroupEnd", communicator);
  }

  const Rank rank_;
  const Stream& stream_;
  NcclUniqueId id_{};
  std::atomic<void*> communicator_ = nullptr;
};

}  // namespace

std::unique_ptr<ProcessGroup> make_nccl_group(const Rank& rank, const Stream& stream) {
  return std::make_unique<NcclGroup>(rank, stream);
}

}  // namespace mst::cuda
