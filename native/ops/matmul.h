// The one matrix product: oneDNN on the CPU (a plain loop for f64), cuBLASLt or our kernels on CUDA.
#pragma once

#include <string>

#include "../runtime/kernel.h"

namespace mst {

// c = alpha * op(a) · op(b) + beta * c, with op(a) (m,k) and op(b) (k,n) after the transposes, c (m,n). a and b share a dtype: f32, bf16 or
// f64. c has the same dtype or, for bf16, f32. Sums are in f32 (f64 for f64). Any row strides. If beta is 0, c is not read. k = 0 gives
// beta * c. c must overlap neither a nor b. workspace: 2 MiB per thread on the CPU (over all shapes tried, with sides of 1 to 128256,
// oneDNN asked for at most 1.65 MiB per thread), 32 MiB on CUDA. A product that would need more is computed in blocks.
KERNEL(matmul, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a, bool transpose_b,
       double alpha, double beta);

namespace cpu {
// For tests: the name of oneDNN's implementation for these arguments; empty if it has none. "ref…" is a hundred times too slow and must not
// be used.
std::string matmul_implementation(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b,
                                  double alpha, double beta);
}  // namespace cpu

}  // namespace mst
