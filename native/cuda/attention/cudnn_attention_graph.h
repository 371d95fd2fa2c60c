// Attention as graphs of cuDNN. They are the graphs that cudnn-frontend (1.23) builds for scaled dot-product attention: cuDNN finds no fast
// kernel for other, equivalent orders of the same operations.
#pragma once

#include <cstdint>
#include <tuple>

#include "../libraries/cudnn_graph.h"

namespace mst::cuda {

// Everything that a plan depends on.
struct CudnnAttentionKind {
  bool is_backward;
  std::int64_t B, T, H, G, D;                                                                           // H and G: the heads of one launch
  std::int64_t q_stride, k_stride, v_stride, out_stride, dout_stride, dq_stride, dk_stride, dv_stride;  // from row to row
  std::int64_t lse_stride;  // from one sequence of the batch to the next
  std::int64_t window;
  double scale, softcap;

  auto tie() const {
    return std::tie(is_backward, B, T, H, G, D, q_stride, k_stride, v_stride, out_stride, dout_stride, dq_stride, dk_stride, dv_stride,
                    lse_stride, window, scale, softcap);
  }
  friend bool operator<(const CudnnAttentionKind& x, const CudnnAttentionKind& y) {
    return x.tie() < y.tie();
  }

  dnn::Sizes sizes(std::int64_t heads) const {
    return {B, heads, T, D};
  }
  dnn::Sizes strides(std::int64_t row_stride) const {
    return {T * row_stride, D, row_stride, 1};
  }
  dnn::Sizes score_sizes() const {
    return {B, H, T, T};
  }
  dnn::Sizes row_sizes() const {
    return {B, H, T, 1};
  }
  dnn::Sizes lse_strides() const {
    return {lse_stride, T, 1, 1};
  }
};

// The ids of tensors, by which a plan gets their memory.
enum CudnnAttentionId : std::int64_t { id_q = 1, id_k, id_v, id_out, id_lse, id_dout, id_dq, id_dk, id_dv, id_dq_sum, id_delta };

// Both throw if cuDNN has no engine.
dnn::Plan forward_plan(const CudnnAttentionKind& kind, void* handle);
// Beside operands and results it has id_dq_sum, the f32 sum of dq, and id_delta, Σ_d dout · out.
dnn::Plan backward_plan(const CudnnAttentionKind& kind, void* handle);

}  // namespace mst::cuda
