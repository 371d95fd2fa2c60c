// Opens devices, and describes the machine's CUDA installation.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "context.h"

namespace mst {

std::unique_ptr<Context> open_cpu(int num_threads);

struct CudaOptions {
  std::string attention;         // "builtin": our kernels; "cudnn"; "auto": cuDNN if it is found and faster
  std::string matmul;            // "builtin": our kernels; "auto": cuBLASLt if it is found
  std::string tuning_directory;  // where the timed choices of algorithms are kept; empty: nothing is timed
};
// Throws an Error with cause and remedy if the device cannot be used, or if cuDNN was asked for and cannot be used.
std::unique_ptr<Context> open_cuda(int index, const CudaOptions& options);

struct CudaDevice {
  int index;
  std::string name;
  int major, minor, num_multiprocessors;
  std::size_t total_bytes, free_bytes;
  std::string problem;  // why it cannot be used; empty if it can
};

// What `minisequence doctor` reports.
struct CudaReport {
  bool built;                           // whether this build has CUDA
  std::string architectures;            // of the device code in this build
  int runtime_version, driver_version;  // 13000 = 13.0; 0: unknown
  std::string cublaslt_path;            // empty: not found
  std::size_t cublaslt_version;
  std::vector<std::string> cublaslt_tried;
  std::string cublaslt_problem;  // why it is not used; empty if it is
  std::string cudnn_path;        // empty: not found
  std::size_t cudnn_version;
  std::string cudnn_problem;  // why it is not used; empty if it can be
  std::string problem;
  std::vector<CudaDevice> devices;
};
CudaReport describe_cuda();

// Sets the directories that are searched before all others for CUDA libraries. A library that open_cuda() or describe_cuda() has found
// already stays as it is.
void set_cuda_library_path(std::vector<std::string> directories);

}  // namespace mst
