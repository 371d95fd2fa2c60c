// Replaces the CUDA half in a build without nvcc: defines every CUDA kernel that the contracts declare as a throw.
#include "../runtime/device.h"
#include "../runtime/kernel.h"

#define MST_NO_CUDA "this build has no CUDA. Build with nvcc on the PATH (npm run build), or use device 'cpu'"

#undef KERNEL
#define KERNEL(name, ...)               \
  namespace cuda {                      \
  void name(Context&, __VA_ARGS__) {    \
    MST_FAIL(#name, ": ", MST_NO_CUDA); \
  }                                     \
  }                                     \
  static_assert(true)

#include "../ops/all.h"

namespace mst {

cuda::Context& cuda::context_of(mst::Context&) {
  MST_FAIL("cuda: ", MST_NO_CUDA);
}

std::unique_ptr<Context> open_cuda(int, const CudaOptions&) {
  MST_FAIL("cuda: ", MST_NO_CUDA);
}

CudaReport describe_cuda() {
  CudaReport report{};
  report.problem = MST_NO_CUDA;
  return report;
}

void set_cuda_library_path(std::vector<std::string>) {}

}  // namespace mst
