// Sums in a fixed order: the same bits for the same input.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// sum (1,) f32 (f64 for f64) = Σ x²; partials (P,) f64: workspace, each the sum of a fixed P-th part.
KERNEL(sum_of_squares, const Tensor& x, const Tensor& sum, const Tensor& partials);

// From sums (P,) of squared gradients: norm (1,) = sqrt(Σ sums), factor (1,) = min(1, max_norm / (norm + 1e-6)) (max_norm <= 0: 1).
// Where norm is NaN or infinite, factor is NaN, which adamw takes as the order to leave everything as it is.
KERNEL(clip_factor, const Tensor& sums, const Tensor& norm, const Tensor& factor, double max_norm);

// Throw where operands do not go together.
void check_sum_of_squares(const Tensor& x, const Tensor& sum, const Tensor& partials);
void check_clip_factor(const Tensor& sums, const Tensor& norm, const Tensor& factor);

}  // namespace mst
