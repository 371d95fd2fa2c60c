// Counter-based random numbers: element i depends only on (seed, step, op, i), not on the order of calls.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// y = mean + standard_deviation * normal. Philox4x32-10 (Salmon et al. 2011) with key = (seed low word, seed high word) and counter =
// (i / 4 low word, i / 4 high word, op, step); words (0,1) and (2,3) of its output give elements 4j..4j+3 by the Box-Muller transform:
// u1 = (word + 0.5) / 2^32, u2 = (next word + 0.5) / 2^32, r = sqrt(-2 ln u1), (r cos 2πu2, r sin 2πu2), computed in f64 on the CPU.
KERNEL(random_normal, const Tensor& y, double mean, double standard_deviation, std::int64_t seed, std::int64_t op, std::int64_t step);

// Throws if y is not contiguous.
void check_random_normal(const Tensor& y);

}  // namespace mst
