// See gloo_group.h.
#include "gloo_group.h"

#include <dlfcn.h>

#include <string>

#include "../gloo/gloo.h"

namespace mst::cpu {
namespace {

constexpr const char* library_name = "libminisequence_gloo.so";

struct Gloo {
  decltype(&mst_gloo_open) open;
  decltype(&mst_gloo_connect) connect;
  decltype(&mst_gloo_all_reduce) all_reduce;
  decltype(&mst_gloo_reduce_scatter) reduce_scatter;
  decltype(&mst_gloo_all_gather) all_gather;
  decltype(&mst_gloo_all_to_all) all_to_all;
  decltype(&mst_gloo_abort) abort;
  decltype(&mst_gloo_close) close;
};

std::string folder_of_addon() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&make_gloo_group), &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  MST_CHECK(function, "ranks on the CPU: ", library_name, " has no ", name, ": it is of another version; npm run build");
}

// Never unloaded: its threads end when a group does, which may be at the end of the process.
Gloo load() {
  const std::string path = folder_of_addon() + library_name;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* const why = dlerror();
    MST_FAIL("ranks on the CPU need Gloo, and ", path, " cannot be loaded: ", why ? why : "unknown",
             ". Install it (sudo apt-get install libgloo-dev), then npm run build");
  }
  Gloo gloo{};
  find(library, "mst_gloo_open", gloo.open);
  find(library, "mst_gloo_connect", gloo.connect);
  find(library, "mst_gloo_all_reduce", gloo.all_reduce);
  find(library, "mst_gloo_reduce_scatter", gloo.reduce_scatter);
  find(library, "mst_gloo_all_gather", gloo.all_gather);
  find(library, "mst_gloo_all_to_all", gloo.all_to_all);
  find(library, "mst_gloo_abort", gloo.abort);
  find(library, "mst_gloo_close", gloo.close);
  return gloo;
}

const Gloo& gloo() {
  static const Gloo loaded = load();
  return loaded;
}

// Calls a function of the library with these arguments, and throws what it says.
template <class Function, class... Arguments>
void call(const char* name, Function* function, Arguments... arguments) {
  MstGlooProblem problem;
  MST_CHECK(function(arguments..., &problem), "Gloo: ", name, ": ", problem.text);
}

MstGlooDtype dtype_of(const Tensor& x) {
  switch (x.dtype) {
    case Dtype::f32:
      return mst_gloo_f32;
    case Dtype::f64:
      return mst_gloo_f64;
    case Dtype::bf16:
      return mst_gloo_bf16;
    default:
      MST_FAIL("Gloo: needs a floating dtype, got ", name_of(x.dtype));
  }
}

class GlooGroup final : public ProcessGroup {
 public:
  explicit GlooGroup(const Rank& rank) : ProcessGroup(rank.size) {
    const char* address = nullptr;
    std::size_t bytes = 0;
    call("open", gloo().open, rank.rank, rank.size, rank.host.c_str(), rank.timeout_seconds, &group_, &address, &bytes);
    address_.assign(address, bytes);
  }
  ~GlooGroup() override {
    gloo().close(group_);
  }

  std::string address() const override {
    return address_;
  }
  void connect(const std::vector<std::string>& addresses) override {
    std::string all;
    for (const std::string& address : addresses) {
      MST_CHECK(address.size() == address_.size(), "Gloo: connect: an address of ", address.size(), " bytes, needs ", address_.size());
      all += address;
    }
    call("connect", gloo().connect, group_, all.data(), address_.size());
  }
  void all_reduce(const Tensor& x) override {
    call("all_reduce", gloo().all_reduce, group_, x.data, static_cast<std::size_t>(x.size()), dtype_of(x));
  }
  void reduce_scatter(const Tensor& x, std::int64_t part) override {
    call("reduce_scatter", gloo().reduce_scatter, group_, x.data, static_cast<std::size_t>(x.size()), static_cast<std::size_t>(part),
         dtype_of(x));
  }
  void all_gather(const Tensor& x, std::int64_t part) override {
    const std::size_t each = size_of(x.dtype);
    call("all_gather", gloo().all_gather, group_, x.data, static_cast<std::size_t>(x.size()) * each, static_cast<std::size_t>(part) * each);
  }
  void all_to_all(const Tensor& x, const Tensor& y, int first, int size) override {
    const std::size_t part_bytes = static_cast<std::size_t>(x.size()) / static_cast<std::size_t>(size) * size_of(x.dtype);
    call("all_to_all", gloo().all_to_all, group_, x.data, y.data, part_bytes, first, size);
  }
  void abort() override {
    call("abort", gloo().abort, group_);
  }

 private:
  MstGloo* group_ = nullptr;
  std::string address_;
};

}  // namespace

std::unique_ptr<ProcessGroup> make_gloo_group(const Rank& rank) {
  return std::make_unique<GlooGroup>(rank);
}

}  // namespace mst::cpu
