// The device of cuda:: ops in minisequence_gpu_tests: the first GPU.
#include "device.h"

#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "support.h"

namespace mst::test {
namespace {

// Opened before the first test, with the package's own attention; this thread runs its commands.
class Gpu final : public testing::Environment {
 public:
  void SetUp() override {
    context_ = open_cuda(0, {"own", "auto", ""});
    context_->attach_thread();
  }
  void TearDown() override {
    context_.reset();
  }

 private:
  std::unique_ptr<DeviceContext> context_;
};

const testing::Environment* const gpu = testing::AddGlobalTestEnvironment(new Gpu);

}  // namespace

void* device_memory(const char* host, std::size_t bytes, bool is_written) {
  void* device = nullptr;
  CUDA_CHECK(cudaMalloc(&device, bytes));
  if (is_written) CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
  return device;
}

void copy_to_host(char* host, void* device, std::size_t bytes) {
  CUDA_CHECK(cudaDeviceSynchronize());
  CUDA_CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}

void free_device_memory(void* device) {
  cudaFree(device);  // waits for the ops that use it
}

std::array<long long, 4> take_status() {
  std::array<long long, 4> words;
  CUDA_CHECK(cudaDeviceSynchronize());
  CUDA_CHECK(cudaMemcpy(words.data(), cuda::status_words(), sizeof words, cudaMemcpyDeviceToHost));
  CUDA_CHECK(cudaMemset(cuda::status_words(), 0, sizeof words));
  return words;
}

void run_reversed(bool) {}

}  // namespace mst::test
