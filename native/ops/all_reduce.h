// Sum over the ranks that compute one step together.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// x without gaps, f32, bf16 or f64 (CPU) := the sum of every rank's x, the same bits on each; bf16 is rounded after each addition. Every
// rank calls it in the same order, with as many elements of the same dtype. Error where the device is in no group, or a rank is lost.
KERNEL(all_reduce, const Tensor& x);

// Throws where x has gaps or is not of a floating dtype.
void check_all_reduce(const Tensor& x);

}  // namespace mst
