// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), of whole heads or of their first columns.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

struct RopeOptions {
  std::int64_t T, D;  // length of a sequence, size of a head
  double scale = 1;   // factor on rotated columns
  // The pairs of columns of a head: (2d, 2d + 1), or (d, d + R/2), the half-split layout of most of HuggingFace's checkpoints.
  bool is_interleaved = false;
  bool is_inverse = false;  // rotates by -angle: the backward
  // Factor on all columns at position p: 1 + growth * ln(1 + floor(p / growth_positions)).
  double growth = 0;
  std::int64_t growth_positions = 1;

  static constexpr std::tuple fields{Field{"T", &RopeOptions::T},
                                     Field{"D", &RopeOptions::D},
                                     Field{"scale", &RopeOptions::scale},
                                     Field{"isInterleaved", &RopeOptions::is_interleaved},
                                     Field{"isInverse", &RopeOptions::is_inverse},
                                     Field{"growth", &RopeOptions::growth},
                                     Field{"growthPositions", &RopeOptions::growth_positions}};
};

// Rotates the first R columns of every head of x (N,heads·D), where R is twice the size of inverse_frequencies (R/2,) f64. At position p of
// row n, with angle = p * inverse_frequencies[d], the d-th pair (a, b) becomes
//   (a * cos(angle) - b * sin(angle)) * scale,  (b * cos(angle) + a * sin(angle)) * scale
// The other columns are copied. p = n mod T; if document_start (N,) i32 is given, p = n - document_start[n], where document_start[n] is the
// row of N at which n's document begins. The angle is formed and reduced in f64, as f32 becomes inaccurate beyond position 100,000. y may
// be x.
KERNEL(rope, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
       const RopeOptions& options);

// Throws if shapes or dtypes of the operands do not match.
void check_rope(const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
                const RopeOptions& options);

}  // namespace mst
