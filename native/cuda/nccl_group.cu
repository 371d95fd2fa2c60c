// See nccl_group.h.
#include "nccl_group.h"

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
      MST_FAIL("all_reduce: needs a floating dtype, got ", name_of(x.dtype));
  }
}

class NcclGroup final : public ProcessGroup {
 public:
  NcclGroup(const Rank& rank, const Stream& stream) : rank_(rank), stream_(stream) {
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
    void* const communicator = communicator_;
    MST_CHECK(communicator, "NCCL: the group was aborted");
    const auto count = static_cast<std::size_t>(x.size());
    check_nccl(nccl().all_reduce(x.data, x.data, count, dtype_of(x), Nccl::sum, communicator, stream_.get()), "ncclAllReduce",
               communicator);
  }
  void abort() override {
    if (void* const communicator = communicator_.exchange(nullptr)) nccl().abort(communicator);
  }

 private:
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
