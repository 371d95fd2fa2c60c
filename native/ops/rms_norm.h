// Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// y (N,C) = x (N,C) / sqrt(mean(x²) + eps) * (weight (C,) + weight_offset). y may be x. weight may have x's dtype or f32.
KERNEL(rms_norm_forward, const Tensor& x, const Tensor& weight, const Tensor& y, double eps, double weight_offset);

// With r = 1/sqrt(mean(x²) + eps), recomputed here, and g = dy * (weight + weight_offset):
//   dx (N,C)     = r * (g - x * r² * mean(g * x))        may be dy
//   dweight (C,) += Σ over N of dy * x * r               absent: skipped; compute dtype, or bf16, rounded once
// partials (P,C), compute dtype: workspace. Row p sums a fixed P-th part of the rows; then the P rows are added in a fixed order. Absent if
// dweight is.
KERNEL(rms_norm_backward, const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
       const OptionalTensor& partials, double eps, double weight_offset);

// Throw if shapes or dtypes of the operands do not match.
void check_rms_norm_forward(const Tensor& x, const Tensor& weight, const Tensor& y);
void check_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
                             const OptionalTensor& partials);

}  // namespace mst
