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
  if (is_written) {
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda::current_stream()));
    CUDA_CHECK(cudaStreamSynchronize(cuda::current_stream()));
  }
  return device;
}

void copy_to_host(char* host, const char* device, std::size_t pitch, std::size_t width, std::size_t rows) {
  CUDA_CHECK(cudaMemcpy2DAsync(host, pitch, device, pitch, width, rows, cudaMemcpyDeviceToHost, cuda::current_stream()));
  CUDA_CHECK(cudaStreamSynchronize(cuda::current_stream()));
}

void free_device_memory(void* device) {
  cudaFree(device);  // waits for the ops that use it
}

std::array<long long, 4> take_status() {
  std::array<long long, 4> words;
  CUDA_CHECK(cudaMemcpyAsync(words.data(), cuda::status_words(), sizeof words, cudaMemcpyDeviceToHost, cuda::current_stream()));
  CUDA_CHECK(cudaMemsetAsync(cuda::status_words(), 0, sizeof words, cuda::current_stream()));
  CUDA_CHECK(cudaStreamSynchronize(cuda::current_stream()));
  return words;
}

std::vector<bool> orders() {
  return {false};
}

void run_reversed(bool) {}
void give_shared_memory(std::size_t) {}
void give_clusters(unsigned) {}

}  // namespace mst::test
