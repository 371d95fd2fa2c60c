// Opening devices, and what there is of CUDA on this machine.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "context.h"

namespace mst {

std::unique_ptr<Context> open_cpu(int num_threads);

struct CudaOptions {
  std::string attention;         // "own", "cudnn" or "auto": cuDNN where it is found and faster
  std::string products;          // "own", or "auto": cuBLASLt's where it is found
  std::string tuning_directory;  // for the timed choices of products; empty: nothing is timed
};
// Error with cause and remedy where there is no such device, or no cuDNN where it was asked for.
std::unique_ptr<Context> open_cuda(int index, const CudaOptions& options);

struct CudaDevice {
  int index;
  std::string name;
  int major, minor, num_multiprocessors;
  std::size_t total_bytes, free_bytes;
  std::string problem;  // why it cannot be used; empty where it can
};

// For `doctor`, never throws. problem: why cuda:0 cannot be used, empty where it can.
struct CudaReport {
  bool built;                           // with nvcc
  std::string architectures;            // that device code was compiled for
  int runtime_version, driver_version;  // 13000 = 13.0; 0 where unknown
  std::string cublaslt_path;            // where it was found; empty where it was not
  std::size_t cublaslt_version;
  std::vector<std::string> cublaslt_tried;
  std::string cublaslt_problem;  // why it is not used; empty where it is
  std::string cudnn_path;        // empty where it was not found
  std::size_t cudnn_version;
  std::string cudnn_problem;  // why it is not used; empty where it can be
  std::string problem;
  std::vector<CudaDevice> devices;
};
CudaReport describe_cuda();

// Directories to search for CUDA libraries before all others. Call before the first product.
void set_cuda_library_path(std::vector<std::string> directories);

}  // namespace mst
