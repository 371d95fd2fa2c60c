// Shapes and strides that every kernel of rows is tested with.
#pragma once

#include <functional>

#include "support.h"

namespace mst::test {

inline constexpr std::int64_t row_counts[] = {1, 2, 5}, col_counts[] = {1, 2, 7, 31, 33, 64, 264, 1025};

struct Layout {
  Dtype dtype;
  std::int64_t rows, cols, gap, offset;  // gap and offset 0: contiguous and aligned

  HostTensor make() const {
    return HostTensor(dtype, rows, cols, gap, offset);
  }
  double tolerance() const {
    return dtype == Dtype::bf16 ? 6e-3 : 2e-6;
  }
};

// Every layout in both orders of threads.
inline void for_layouts(const std::function<void(const Layout&)>& test) {
  for (const bool reversed : orders())
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const std::int64_t rows : row_counts)
        for (const std::int64_t cols : col_counts)
          for (const std::int64_t gap : {0, 3, 8}) {
            run_reversed(reversed);
            const Layout layout{dtype, rows, cols, gap, gap == 3 ? 1 : 0};
            SCOPED_TRACE(message_of(name_of(dtype), " (", rows, ",", cols, ") gap ", gap, reversed ? " reversed" : ""));
            test(layout);
            if (testing::Test::HasFailure()) return;
          }
}

}  // namespace mst::test
