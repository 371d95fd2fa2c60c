// The device of emulated kernels: the host's memory, products of the CPU, no cuDNN.
#include <algorithm>

#include "cuda/attention/cudnn_attention.h"
#include "cuda_emulation.h"
#include "ops/matmul.h"
#include "support.h"

namespace mst::test {

cuda::Context& cuda_context() {
  static cuda::Context context(1);
  return context;
}

void* device_memory(const char* host, std::size_t, bool) {
  return const_cast<char*>(host);
}
void copy_to_host(char*, const char*, std::size_t, std::size_t, std::size_t) {}
void free_device_memory(void*) {}

std::array<long long, 4> take_status() {
  long long* const words = cuda_context().status_words();
  const std::array<long long, 4> taken{words[0], words[1], words[2], words[3]};
  std::fill(words, words + 4, 0);
  return taken;
}

std::vector<bool> orders() {
  return {false, true};
}

void run_reversed(bool reversed) {
  emulation::options.reversed = reversed;
}

void give_shared_memory(std::size_t bytes) {
  emulation::options.shared_bytes = bytes;
}

void give_clusters(unsigned size) {
  emulation::options.cluster_size = size;
}

}  // namespace mst::test

namespace mst::cuda {

Context& context_of(mst::Context& context) {
  return static_cast<Context&>(context);
}

// cuBLASLt is not emulated: its contract is the CPU's.
void matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a,
            bool transpose_b, double alpha, double beta) {
  cpu::matmul(context, a, b, c, workspace, transpose_a, transpose_b, alpha, beta);
}

// Without cuDNN attention runs by the kernels under test.
bool cudnn_attention_forward(Context&, const AttentionInputs&, const Tensor&, const Tensor&, const Workspace&, const AttentionOptions&) {
  return false;
}

bool cudnn_attention_backward(Context&, const Tensor&, const AttentionInputs&, const Tensor&, const Tensor&, const AttentionGradients&,
                              const Workspace&, const AttentionOptions&) {
  return false;
}

}  // namespace mst::cuda
