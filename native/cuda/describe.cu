// What there is of CUDA on this machine, and why it cannot be used where it cannot.
#include "../device.h"
#include "cublaslt.h"
#include "cudnn.h"
#include "driver.h"
#include "library.h"

namespace mst {
namespace cuda {
namespace {

__global__ void probe_kernel() {}

std::string version_text(int version) {
  return message_of(version / 1000, '.', version % 1000 / 10);
}

}  // namespace

std::string device_problem() {
  int driver_version = 0, runtime_version = 0, count = 0;
  cudaDriverGetVersion(&driver_version);
  cudaRuntimeGetVersion(&runtime_version);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) {
    cudaFuncAttributes attributes{};
    const cudaError_t code = cudaFuncGetAttributes(&attributes, probe_kernel);
    cudaGetLastError();
    if (code == cudaSuccess) return "";
    cudaDeviceProp properties{};
    cudaGetDeviceProperties(&properties, 0);
    return message_of("the build has no code for ", properties.name, " (compute ", properties.major, '.', properties.minor, "), only for ",
                      MST_CUDA_ARCHITECTURES, "; build with -DMST_CUDA_ARCHITECTURES=", properties.major, properties.minor);
  }
  cudaGetLastError();
  if (driver_version == 0)
    return message_of("no NVIDIA driver was found; CUDA ", version_text(runtime_version), " needs driver 580 or newer");
  if (status == cudaErrorInsufficientDriver)
    return message_of("the NVIDIA driver supports CUDA ", version_text(driver_version), ", this build needs ",
                      version_text(runtime_version), ": install driver 580 or newer");
  return message_of("no CUDA device can be used: ", cudaGetErrorString(status));
}

}  // namespace cuda

CudaReport describe_cuda() {
  CudaReport report{};
  report.built = true;
  report.architectures = MST_CUDA_ARCHITECTURES;
  cudaRuntimeGetVersion(&report.runtime_version);
  cudaDriverGetVersion(&report.driver_version);
  report.problem = cuda::device_problem();
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    count = 0;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    std::size_t free_bytes = 0, total_bytes = properties.totalGlobalMem;
    if (cudaSetDevice(i) == cudaSuccess) cudaMemGetInfo(&free_bytes, &total_bytes);
    report.devices.push_back(
        {i, properties.name, properties.major, properties.minor, properties.multiProcessorCount, total_bytes, free_bytes});
  }
  const cuda::CublasLtSearch search = cuda::find_cublaslt();
  report.cublaslt_path = search.path;
  report.cublaslt_version = search.version;
  report.cublaslt_tried = search.tried;
  const cuda::CudnnSearch cudnn = cuda::find_cudnn();
  report.cudnn_path = cudnn.library.path;
  report.cudnn_version = cudnn.version;
  report.cudnn_problem = cudnn.problem;
  return report;
}

void set_cuda_library_path(std::vector<std::string> directories) {
  cuda::set_library_directories(std::move(directories));
}

}  // namespace mst
