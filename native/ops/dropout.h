// Dropout by counter-based random numbers: which elements are kept depends only on (seed, step, op, element), so that chunks and
// recomputation see the same mask.
#pragma once

#include <algorithm>
#include <optional>

#include "../philox.h"
#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

// Where a rank's rows, which are parts of sequences, lie in the whole batch: row n is row n / count · T + begin + n mod count of it.
struct SequenceRows {
  std::int64_t T, begin, count;

  static constexpr std::tuple fields{Field{"T", &SequenceRows::T}, Field{"begin", &SequenceRows::begin},
                                     Field{"count", &SequenceRows::count}};
};
using OptionalSequenceRows = std::optional<SequenceRows>;

// The dropout of a forward; ops also take their own number `op`.
struct Dropout {
  double probability = 0;  // in [0, 1)
  std::int64_t seed = 0, step = 0;
  OptionalSequenceRows rows;  // absent: the rows are the whole batch

  static constexpr std::tuple fields{Field{"probability", &Dropout::probability}, Field{"seed", &Dropout::seed},
                                     Field{"step", &Dropout::step}, Field{"rows", &Dropout::rows}};
};

// y (N,C) = x (N,C) * keep / (1 - probability), one dtype; y may be x. It is its own backward, with dy for x. Element i = (first_row + n)·C
// + c is dropped if word i % 4 of Philox4x32-10 is below probability · 2^32. The key is (seed low word, seed high word), the counter (i / 4
// low word, i / 4 high word, op, step). Where `with` has rows, first_row + n is the row of the whole batch that this row is.
KERNEL(dropout, const Tensor& x, const Tensor& y, const Dropout& with, std::int64_t op, std::int64_t first_row);

// Throws if x and y do not match or the probability is not in [0, 1).
void check_dropout(const Tensor& x, const Tensor& y, const Dropout& with);

// Calls part(begin, end, first) for rows [begin, end) of `count` that follow each other in the whole batch from row `first` on.
template <class Part>
void for_parts_of_sequences(const OptionalSequenceRows& rows, std::int64_t first_row, std::int64_t count, const Part& part) {
  if (!rows) return part(0, count, first_row);
  for (std::int64_t begin = 0; begin < count;) {
    const std::int64_t n = first_row + begin, place = n % rows->count;
    const std::int64_t end = std::min(count, begin + rows->count - place);
    part(begin, end, n / rows->count * rows->T + rows->begin + place);
    begin = end;
  }
}

// What decides about all elements of a call.
struct DropoutMask {
  std::uint32_t threshold, key0, key1, op, step;

  static DropoutMask of(const Dropout& dropout, std::int64_t op) {
    return {static_cast<std::uint32_t>(dropout.probability * 4294967296.0), static_cast<std::uint32_t>(dropout.seed),
            static_cast<std::uint32_t>(dropout.seed >> 32), static_cast<std::uint32_t>(op), static_cast<std::uint32_t>(dropout.step)};
  }
  // The random words of elements 4·j to 4·j + 3.
  MST_HOST_DEVICE Philox random(std::int64_t j) const {
    return philox({{static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(j >> 32), op, step}}, key0, key1);
  }
  MST_HOST_DEVICE bool keeps(std::int64_t i) const {
    return random(i / 4).words[i % 4] >= threshold;
  }
};

}  // namespace mst
