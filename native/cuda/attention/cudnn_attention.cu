// Decides which calls of attention cuDNN computes; see cudnn_attention.h.
#include "cudnn_attention.h"

#include <algorithm>
#include <initializer_list>

#include "../context.h"
#include "cudnn_attention_plans.h"

namespace mst::cuda {
namespace {

constexpr std::int64_t tile = 128;  // T must be a multiple of it: versions of cuDNN differ in how they treat the rest

bool applies(std::initializer_list<const Tensor*> tensors, const AttentionOptions& g) {
  constexpr std::int64_t elements_of_16_bytes = 8;
  constexpr std::size_t version_with_a_window_that_is_not_causal = 91400;
  if (g.window > 0 && cudnn().version() == version_with_a_window_that_is_not_causal) return false;
  if (g.T % tile != 0 || g.D % elements_of_16_bytes != 0 || g.D > 256) return false;
  constexpr std::int64_t end_of_offsets = std::int64_t{1} << 31;  // cuDNN 9.14 computed a wrong dq beyond it
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* t) {
    return t->dtype == Dtype::bf16 && t->rows() * t->row_stride < end_of_offsets && t->rows() > 0 &&
           t->row_stride % elements_of_16_bytes == 0 && reinterpret_cast<std::uintptr_t>(t->data) % 16 == 0;
  });
}

CudnnAttentionTest test_of(const Tensor& q, const Tensor& k, const AttentionOptions& g, bool is_backward) {
  return {is_backward, g.D, q.cols() / k.cols(), g.window > 0 && g.window<g.T, g.softcap> 0};
}

}  // namespace

std::string cudnn_attention_problem(int device) {
  int major = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  constexpr int hopper = 9;
  if (major < hopper) return "before sm_90 our kernels are as fast";
  return find_cudnn().problem;
}

bool cudnn_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                             const Workspace& workspace, const AttentionOptions& options) {
  CudnnAttention* const attention = context.cudnn_attention();
  const auto& [q, k, v, document_start] = inputs;
  return attention && !document_start && applies({&q, &k, &v, &out}, options) &&
         attention->passes(context, test_of(q, k, options, false)) && attention->forward(inputs, out, lse, workspace, options);
}

bool cudnn_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                              const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options) {
  CudnnAttention* const attention = context.cudnn_attention();
  const auto& [q, k, v, document_start] = inputs;
  const auto& [dq, dk, dv] = gradients;
  return attention && !document_start && applies({&dout, &q, &k, &v, &out, &dq, &dk, &dv}, options) &&
         attention->passes(context, test_of(q, k, options, true)) &&
         attention->backward(dout, inputs, out, lse, gradients, workspace, options);
}

}  // namespace mst::cuda
