// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in the half-split layout of HuggingFace's checkpoints.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// Rotates every head of x (N,heads·D): with d in [0, D/2), position p of row n and angle = p * inverse_frequencies (D/2,) f64 [d],
//   y[d]       = (x[d] * cos(angle) - x[d + D/2] * sin(angle)) * scale
//   y[d + D/2] = (x[d + D/2] * cos(angle) + x[d] * sin(angle)) * scale
// p = n mod T, or n - document_start[n] where document_start (N,) i32 is given (the row, counted over all N, where n's document begins).
// inverse = true rotates by -angle: the backward. The angle is formed and reduced in f64; f32 drifts past 100K positions. y may be x.
KERNEL(rope, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y, std::int64_t T,
       std::int64_t D, double scale, bool inverse);

// Throws where operands do not go together.
void check_rope(const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y, std::int64_t T,
                std::int64_t D);

}  // namespace mst
