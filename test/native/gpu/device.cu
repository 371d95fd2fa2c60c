// The device of cuda:: ops in minisequence_gpu_tests: the first GPU.
#include "runtime/device.h"

#include <cuda_runtime.h>

#include "cuda/common/launch.h"
#include "support.h"

namespace mst::test {
namespace {

std::unique_ptr<Context> context;

// Opened before the first test, with our attention kernels; this thread runs its commands.
class Gpu final : public testing::Environment {
 public:
  void SetUp() override {
    context = open_cuda(0, {"builtin", "auto", ""});
    context->attach_thread();
  }
  void TearDown() override {
    context.reset();
  }
};

const testing::Environment* const gpu = testing::AddGlobalTestEnvironment(new Gpu);

}  // namespace

cuda::Context& cuda_context() {
  return cuda::context_of(*context);
}

void* device_memory(const char* host, std::size_t bytes, bool is_written) {
  void* device = nullptr;
  CUDA_CHECK(cudaMalloc(&device, bytes));
  if (is_written) {
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_context().stream()));
    CUDA_CHECK(cudaStreamSynchronize(cuda_context().stream()));
  }
  return device;
}

void copy_to_host(char* host, const char* device, std::size_t pitch, std::size_t width, std::size_t rows) {
  CUDA_CHECK(cudaMemcpy2DAsync(host, pitch, device, pitch, width, rows, cudaMemcpyDeviceToHost, cuda_context().stream()));
  CUDA_CHECK(cudaStreamSynchronize(cuda_context().stream()));
}

void free_device_memory(void* device) {
  cudaFree(device);  // waits for the ops that use it
}

std::array<long long, 4> take_status() {
  std::array<long long, 4> words;
  CUDA_CHECK(cudaMemcpyAsync(words.data(), cuda_context().status_words(), sizeof words, cudaMemcpyDeviceToHost, cuda_context().stream()));
  CUDA_CHECK(cudaMemsetAsync(cuda_context().status_words(), 0, sizeof words, cuda_context().stream()));
  CUDA_CHECK(cudaStreamSynchronize(cuda_context().stream()));
  return words;
}

std::vector<bool> orders() {
  return {false};
}

void run_reversed(bool) {}
void give_shared_memory(std::size_t) {}
void give_clusters(unsigned) {}

}  // namespace mst::test
