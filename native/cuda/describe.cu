// Describes the machine's CUDA installation, and why it cannot be used.
#include "../runtime/device.h"
#include "libraries/cublaslt.h"
#include "libraries/cudnn.h"
#include "libraries/driver.h"
#include "libraries/library.h"

namespace mst {
namespace cuda {
namespace {

__global__ void probe_kernel() {}

std::string version_text(int version) {
  return message_of(version / 1000, '.', version % 1000 / 10);
}

// Why an existing device cannot be used; empty if it can. Makes its CUDA context.
std::string code_problem(int index) {
  cudaFuncAttributes attributes{};
  cudaError_t status = cudaSetDevice(index);
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();
  if (status == cudaSuccess) return "";
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, index);
  const std::string name = message_of(properties.name, " (compute ", properties.major, '.', properties.minor, ")");
  constexpr int oldest_major = 8;  // bf16 on tensor cores and asynchronous copies
  switch (status) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
      if (properties.major < oldest_major) return message_of(name, " is too old: compute ", oldest_major, ".0 or newer is needed");
      return message_of("the build has no code for ", name,
                        ", only for " MST_CUDA_ARCHITECTURES "; build with -DMST_CUDA_ARCHITECTURES=", properties.major, properties.minor);
    default:
      return message_of(name, " cannot be used: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
  }
}

// Why the machine has no usable device: no driver, one that is too old, or no device. Empty if it has any.
std::string driver_problem(int& count) {
  int driver_version = 0, runtime_version = 0;
  cudaDriverGetVersion(&driver_version);
  cudaRuntimeGetVersion(&runtime_version);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return "";
  cudaGetLastError();
  count = 0;
  if (driver_version == 0)
    return message_of("no NVIDIA driver was found; CUDA ", version_text(runtime_version), " needs driver 580 or newer");
  if (status == cudaErrorInsufficientDriver)
    return message_of("the NVIDIA driver supports CUDA ", version_text(driver_version), ", this build needs ",
                      version_text(runtime_version), ": install driver 580 or newer");
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return "the NVIDIA driver shows no device; nvidia-smi -L lists them, and CUDA_VISIBLE_DEVICES hides some";
  return message_of("no CUDA device can be used: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

}  // namespace

std::string device_problem(int index) {
  int count = 0;
  const std::string problem = driver_problem(count);
  if (!problem.empty()) return problem;
  if (index < 0 || index >= count) return message_of("this machine has ", count, " device", count == 1 ? "" : "s");
  return code_problem(index);
}

}  // namespace cuda

CudaReport describe_cuda() {
  CudaReport report{};
  report.built = true;
  report.architectures = MST_CUDA_ARCHITECTURES;
  cudaRuntimeGetVersion(&report.runtime_version);
  cudaDriverGetVersion(&report.driver_version);
  int count = 0;
  report.problem = cuda::driver_problem(count);
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    const std::string problem = cuda::code_problem(i);
    if (i == 0) report.problem = problem;
    std::size_t free_bytes = 0, total_bytes = properties.totalGlobalMem;
    if (problem.empty()) cudaMemGetInfo(&free_bytes, &total_bytes);
    report.devices.push_back(
        {i, properties.name, properties.major, properties.minor, properties.multiProcessorCount, total_bytes, free_bytes, problem});
  }
  const cuda::LibrarySearch search = cuda::find_cublaslt();
  report.cublaslt_path = search.path;
  report.cublaslt_version = search.version;
  report.cublaslt_tried = search.tried;
  report.cublaslt_problem = search.problem;
  const cuda::LibrarySearch cudnn = cuda::find_cudnn();
  report.cudnn_path = cudnn.path;
  report.cudnn_version = cudnn.version;
  report.cudnn_problem = cudnn.problem;
  return report;
}

void set_cuda_library_path(std::vector<std::string> directories) {
  cuda::set_library_directories(std::move(directories));
}

}  // namespace mst
