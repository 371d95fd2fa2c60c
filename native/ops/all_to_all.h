// Exchange of rows between the ranks that share sequences.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

// Ranks [first, first + size) of the device's group, this one among them.
struct RankRange {
  std::int64_t first, size;

  static constexpr std::tuple fields{Field{"first", &RankRange::first}, Field{"size", &RankRange::size}};
};

// x and y without gaps, of one shape and dtype (f32, bf16 or f64), of size · M rows: rows [i·M, (i + 1)·M) of y := rows [r·M, (r + 1)·M) of
// x on the i-th of these ranks, where this one is the r-th. Nothing is rounded. Other ranks take no part. All of these call it in the same
// order with the same shape; x and y may not overlap. Error where the device is in no group, or a rank is lost.
KERNEL(all_to_all, const Tensor& x, const Tensor& y, const RankRange& ranks);

// Throws where x and y do not match or the ranks cannot divide their rows.
void check_all_to_all(const Tensor& x, const Tensor& y, const RankRange& ranks);

}  // namespace mst
