// Attention on tensor cores, sm_80 and newer, for bf16 heads of 64, 80, 96, 128 and 256; contracts as in ops/attention.h. Deterministic.
#pragma once

#include "attention_geometry.h"

namespace mst::cuda {

// Whether these kernels take the operands: their dtype, head size and alignment, and a positive scale.
bool mma_attention_applies(const Context& context, std::initializer_list<const Tensor*> tensors, std::int64_t D, double scale);

void mma_attention_forward(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                           const Geometry& g);

// delta (B,H,T): Σ_d dout · out. shared_limit: bytes of shared memory that a block may have; tiles are smaller where it is.
void mma_attention_backward(Context& context, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lse,
                            const float* delta, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Geometry& g,
                            std::size_t shared_limit);

}  // namespace mst::cuda
