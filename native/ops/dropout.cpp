// Dropout; see dropout.h.
#include "dropout.h"

#include "../cpu/parallel.h"

namespace mst::cpu {

void dropout(Context&, const Tensor& x, const Tensor& y, const Dropout& with, std::int64_t op, std::int64_t first_row) {
  check_dropout(x, y, with);
  const DropoutMask mask = DropoutMask::of(with, op);
  const std::int64_t C = x.cols();
  with_float("dropout", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    const S factor = S(1 / (1 - with.probability));
    for_parts_of_sequences(with.rows, first_row, x.rows(), [&](std::int64_t from, std::int64_t to, std::int64_t first) {
      parallel_for(to - from, 1024 / (C + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n)
          for (std::int64_t c = 0; c < C; ++c)
            y.row<T>(from + n)[c] = mask.keeps((first + n) * C + c) ? T(static_cast<S>(x.row<T>(from + n)[c]) * factor) : T(S(0));
      });
    });
  });
}

}  // namespace mst::cpu

namespace mst {

void check_dropout(const Tensor& x, const Tensor& y, const Dropout& with) {
  MST_CHECK(x.rows() == y.rows() && x.cols() == y.cols() && x.dtype == y.dtype, "dropout: x ", x, " and y ", y, " differ");
  MST_CHECK(with.probability >= 0 && with.probability < 1, "dropout: probability must be in [0, 1), got ", with.probability);
  if (const auto& rows = with.rows)
    MST_CHECK(rows->count > 0 && rows->begin >= 0 && rows->T > 0, "dropout: rows of sequences of ", rows->T, " tokens from ", rows->begin,
              " on, ", rows->count, " of each");
}

}  // namespace mst
