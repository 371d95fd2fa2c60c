// Sum over the ranks that compute one step together, of which each gets a part, and the way back: every rank gets all parts.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// x without gaps, n elements of f32, bf16 or f64 (CPU). Rank r's part are elements [r part, min((r + 1) part, n)), which may be empty; size
// ranks with size * part >= n. Every rank calls these in the same order, with as many elements of the same dtype and the same part. Error
// where the device is in no group, or a rank is lost.

// This rank's part of x := the sum of every rank's; the other parts are undefined afterwards. bf16 is rounded at the end or after each
// addition.
KERNEL(reduce_scatter, const Tensor& x, std::int64_t part);

// x := every rank's part of its own x, the same bits on each.
KERNEL(all_gather, const Tensor& x, std::int64_t part);

// Throws where x has gaps or is not of a floating dtype, or `size` parts do not cover it.
void check_parts(const char* op, const Tensor& x, std::int64_t part, int size);

}  // namespace mst
