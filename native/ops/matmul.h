// The one matrix product: oneDNN on the CPU (a plain loop for f64), cuBLASLt on CUDA, our kernels where it is not found.
#pragma once

#include <string>

#include "../runtime/kernel.h"

namespace mst {

// c = alpha * op(a) · op(b) + beta * c, with op(a) (m,k) and op(b) (k,n) after the transposes, c (m,n).
// a and b share a dtype: f32, bf16 or f64; c has the same dtype or, for bf16, f32. Sums are in f32 (f64 for f64).
// Any row strides. beta 0 does not read c. k = 0 gives beta * c. c overlaps neither a nor b.
// workspace: 2 MiB a thread on the CPU (oneDNN asked for at most 1.65 MiB a thread over all shapes tried, 1 to 128256 a side),
// 32 MiB on CUDA. A product that would take more is computed in blocks that do not.
KERNEL(matmul, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a, bool transpose_b,
       double alpha, double beta);

namespace cpu {
// Name of oneDNN's implementation for these arguments, empty where it has none; "ref…" is a hundred times too slow and must not come up.
// For tests.
std::string matmul_implementation(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b,
                                  double alpha, double beta);
}  // namespace cpu

}  // namespace mst
