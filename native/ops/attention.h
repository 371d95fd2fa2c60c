// Causal self-attention with grouped key/value heads, by streaming softmax: memory grows with T, never with T².
// Query head h reads key/value head h / (H/G). Row n = b·T + t. Query t sees key s where s <= t, and
//   window > 0:             s > t - window
//   document_start given:   b·T + s >= document_start[n]      (N,) i32, the row where n's document begins
// Workspace on the CPU, with elements of the compute dtype and tiles of 128 queries by 256 keys:
//   forward   threads * (128·256 + 2·256·D + 2·128·D + 256)
//   backward  threads * (2·128·256 + 4·256·D + 2·128·D) + B·H·T, and N·H·D for bf16
// On CUDA: forward none, backward B·H·T of f32.
// score = scale * q·k, then softcap > 0: softcap * tanh(score / softcap). lse is natural, of the scores a query sees.
#pragma once

#include "../kernel.h"

namespace mst {

// out (N,H·D) = softmax(scores) · v; q (N,H·D), k and v (N,G·D), any row strides; lse (B,H,T) in the compute dtype.
KERNEL(attention_forward, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& document_start, const Tensor& out,
       const Tensor& lse, const Workspace& workspace, std::int64_t T, std::int64_t D, double scale, std::int64_t window, double softcap);

// dq (N,H·D), dk and dv (N,G·D) are assigned. Probabilities come again from q, k and lse. None of the outputs may be an input.
KERNEL(attention_backward, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& document_start,
       const Tensor& out, const Tensor& lse, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Workspace& workspace,
       std::int64_t T, std::int64_t D, double scale, std::int64_t window, double softcap);

}  // namespace mst
