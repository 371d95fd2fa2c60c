// The one matrix product: oneDNN on the CPU (a plain loop for f64), cuBLASLt on CUDA.
#pragma once

#include "../kernel.h"

namespace mst {

// c = alpha * op(a) · op(b) + beta * c, with op(a) (m,k) and op(b) (k,n) after the transposes, c (m,n).
// a and b share a dtype: f32, bf16 or f64; c has the same dtype or, for bf16, f32. Sums are in f32 (f64 for f64).
// Any row strides. beta 0 does not read c. k = 0 gives beta * c. c overlaps neither a nor b.
KERNEL(matmul, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a, bool transpose_b,
       double alpha, double beta);

}  // namespace mst
