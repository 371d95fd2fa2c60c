// Sums in a fixed order: the same input always gives the same bits.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// sum (1,) f32 (f64 for f64) = Σ x². partials (P,) f64: workspace, each the sum of a fixed P-th part.
KERNEL(sum_of_squares, const Tensor& x, const Tensor& sum, const Tensor& partials);

// From sums (P,) of squared gradients: norm (1,) = sqrt(Σ sums), factor (1,) = min(1, max_norm / (norm + 1e-6)); 1 if max_norm <= 0. If
// norm is NaN or infinite, factor is NaN, and adamw then changes nothing.
KERNEL(clip_factor, const Tensor& sums, const Tensor& norm, const Tensor& factor, double max_norm);

// Throw if shapes or dtypes of the operands do not match.
void check_sum_of_squares(const Tensor& x, const Tensor& sum, const Tensor& partials);
void check_clip_factor(const Tensor& sums, const Tensor& norm, const Tensor& factor);

}  // namespace mst
