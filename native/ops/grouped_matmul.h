// Products grouped by expert: expert e has the rows [offsets[e], offsets[e+1]) of an operand with R rows. offsets (E+1,) i32 lies on the
// device, and nothing waits for it. Dtypes, sums and strides as in matmul.h; f32 and bf16 on CUDA, in our own kernels.
#pragma once

#include "../runtime/kernel.h"
#include "contract.h"

namespace mst {

// c (R,n): c_e = a_e (rows of a (R,i)) · op(b_e). b holds E matrices one after the other: (E·n,i) if transpose_b, else (E·i,n).
// workspace: as for matmul().
KERNEL(grouped_matmul, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, const Workspace& workspace,
       bool transpose_b);

// c (E·m,n): c_e = a_eᵀ · b_e + beta · c_e, with a (R,m) and b (R,n). c: as of matmul(), or bf16. beta is 0 or 1; an expert without rows
// gets beta · c_e. workspace: as for matmul().
KERNEL(grouped_matmul_weights, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, const Workspace& workspace,
       double beta);

// The sizes of a grouped product. Throw if shapes or dtypes of the operands do not match.
struct GroupedSizes {
  std::int64_t E, m, n, k;  // m: R of grouped_matmul; k: R of grouped_matmul_weights
};
GroupedSizes check_grouped_matmul(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, bool transpose_b);
GroupedSizes check_grouped_matmul_weights(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, double beta);

}  // namespace mst
