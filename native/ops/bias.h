// Adds a bias to every row.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// y (N,C) += bias (C,), one dtype.
KERNEL(bias_forward, const Tensor& y, const Tensor& bias);

// dbias (C,) += Σ over N of dy (N,C), in the compute dtype or bf16, which is rounded once. partials (P,C), compute dtype: workspace. Row p
// sums a fixed P-th part of the rows; then the P rows are added in a fixed order.
KERNEL(bias_backward, const Tensor& dy, const Tensor& dbias, const Tensor& partials);

// Throw if shapes or dtypes of the operands do not match.
void check_bias_forward(const Tensor& y, const Tensor& bias);
void check_bias_backward(const Tensor& dy, const Tensor& dbias, const Tensor& partials);

}  // namespace mst
