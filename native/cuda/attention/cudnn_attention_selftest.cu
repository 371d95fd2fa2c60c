// The self-test of cuDNN's attention; versions of cuDNN differ in which calls they compute correctly.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../../ops/attention_own.h"
#include "../../ops/random_normal.h"
#include "../common/launch.h"
#include "cudnn_attention_plans.h"

namespace mst::cuda {
namespace {

// The memory of a self-test: a few MiB outside the arena, freed with this object.
class TestMemory {
 public:
  explicit TestMemory(Context& context) : context_(context) {}
  ~TestMemory() {
    for (void* block : blocks_) cudaFree(block);
  }
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;

  Tensor tensor(std::int64_t rows, std::int64_t cols, Dtype dtype) {
    return {bytes(static_cast<std::size_t>(rows * cols) * size_of(dtype)), dtype, 2, {rows, cols}, cols};
  }
  Tensor random(std::int64_t rows, std::int64_t cols) {
    const Tensor made = tensor(rows, cols, Dtype::bf16);
    random_normal(context_, made, 0, 1, 1, static_cast<std::int64_t>(blocks_.size()), 0);
    return made;
  }
  Workspace workspace(std::size_t size) {
    return {bytes(size), size};
  }

 private:
  void* bytes(std::size_t size) {
    void* block = nullptr;
    CUDA_CHECK(cudaMalloc(&block, size));
    blocks_.push_back(block);
    return block;
  }
  Context& context_;
  std::vector<void*> blocks_;
};

std::vector<float> to_host(Context& context, const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype == Dtype::f32) {
    CUDA_CHECK(cudaMemcpyAsync(values.data(), tensor.data, values.size() * sizeof(float), cudaMemcpyDeviceToHost, context.stream()));
    CUDA_CHECK(cudaStreamSynchronize(context.stream()));
    return values;
  }
  std::vector<__nv_bfloat16> stored(values.size());
  CUDA_CHECK(cudaMemcpyAsync(stored.data(), tensor.data, stored.size() * 2, cudaMemcpyDeviceToHost, context.stream()));
  CUDA_CHECK(cudaStreamSynchronize(context.stream()));
  std::transform(stored.begin(), stored.end(), values.begin(), [](__nv_bfloat16 value) { return __bfloat162float(value); });
  return values;
}

// Whether ‖a - b‖ <= limit · ‖b‖; false if there is a NaN.
bool agree(Context& context, const Tensor& a, const Tensor& b) {
  constexpr double limit = 2e-2;  // both sides round to bf16
  const std::vector<float> x = to_host(context, a), y = to_host(context, b);
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
    norm += double(y[i]) * y[i];
  }
  return difference <= limit * limit * norm;
}

// Compares cuDNN with our kernels for T = 256 and one key/value head.
bool agrees(Context& context, CudnnAttention& attention, const CudnnAttentionTest& test) {
  const std::int64_t T = 256, D = test.D, H = test.heads_per_group;
  const AttentionOptions g{T, D, 1 / std::sqrt(static_cast<double>(D)), test.has_window ? 100 : 0, test.has_softcap ? 5.0 : 0.0};
  TestMemory memory(context);
  const Tensor q = memory.random(T, H * D), k = memory.random(T, D), v = memory.random(T, D), dout = memory.random(T, H * D);
  const auto heads = [&](std::int64_t count) { return memory.tensor(T, count * D, Dtype::bf16); };
  const Tensor out = heads(H), own_out = heads(H), lse = memory.tensor(H, T, Dtype::f32), own_lse = memory.tensor(H, T, Dtype::f32);
  const Workspace workspace = memory.workspace(CudnnBackwardMemory(1, T, D, H, 1).total());
  const AttentionInputs inputs{q, k, v};
  own_attention_forward(context, inputs, own_out, own_lse, g);
  if (!test.is_backward)
    return attention.forward(inputs, out, lse, workspace, g) && agree(context, out, own_out) && agree(context, lse, own_lse);
  const Tensor dq = heads(H), dk = heads(1), dv = heads(1), own_dq = heads(H), own_dk = heads(1), own_dv = heads(1);
  own_attention_backward(context, dout, inputs, own_out, own_lse, {own_dq, own_dk, own_dv}, workspace, g);
  return attention.backward(dout, inputs, own_out, own_lse, {dq, dk, dv}, workspace, g) && agree(context, dq, own_dq) &&
         agree(context, dk, own_dk) && agree(context, dv, own_dv);
}

}  // namespace

bool CudnnAttention::passes(Context& context, const CudnnAttentionTest& test) {
  const auto found = test_results_.find(test);
  if (found != test_results_.end()) return found->second;
  bool passed = false;
  try {
    passed = agrees(context, *this, test);
  } catch (const Error&) {
    cudaGetLastError();
  }
  return test_results_[test] = passed;
}

}  // namespace mst::cuda
