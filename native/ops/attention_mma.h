// Attention on tensor cores (sm_80 and newer), for bf16 heads of size 64, 80, 96, 128 or 256. Contracts are those of attention.h.
// Deterministic.
#pragma once

#include "attention.h"
#include "attention_heads.h"

namespace mst::cuda {

// Whether these kernels support the operands' dtype, head size and alignment, and the scale, which must be positive.
bool mma_attention_applies(const Context& context, std::initializer_list<const Tensor*> tensors, std::int64_t D, double scale);

void mma_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Geometry& g);

// What the backward reads. delta (B,H,T) = Σ_d dout · out.
struct MmaBackwardInputs {
  const Tensor& dout;
  const AttentionInputs& inputs;
  const Tensor& lse;
  const float* delta;
};

// shared_limit: bytes of shared memory that a block may have; a lower limit makes tiles smaller.
void mma_attention_backward(Context& context, const MmaBackwardInputs& from, const AttentionGradients& gradients, const Geometry& g,
                            std::size_t shared_limit);

}  // namespace mst::cuda
