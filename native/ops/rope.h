// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), of whole heads or of their first columns.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

struct RopeOptions {
  std::int64_t T, D;  // of a sequence, of a head
  double scale = 1;   // factor on rotated columns
  // Which columns of a head are a pair: (2d, 2d + 1), or (d, d + R/2), the half-split layout of most of HuggingFace's checkpoints.
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

// Rotates the first R columns of every head of x (N,heads·D), R = 2 · the size of inverse_frequencies (R/2,) f64: a pair (a, b), the d-th,
// at position p of row n, with angle = p * inverse_frequencies[d], becomes
//   (a * cos(angle) - b * sin(angle)) * scale,  (b * cos(angle) + a * sin(angle)) * scale
// The other columns are copied. p = n mod T, or n - document_start[n] where document_start (N,) i32 is given (the row, counted over all N,
// where n's document begins). The angle is formed and reduced in f64; f32 drifts past 100K positions. y may be x.
KERNEL(rope, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
       const RopeOptions& options);

// Throws where operands do not go together.
void check_rope(const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
                const RopeOptions& options);

}  // namespace mst
