// Dropout; see dropout.h.
#include "dropout.h"

#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct DropVectors {
  Rows<const T> x;
  Rows<T> y;
  std::int64_t C, first_row;
  float factor;
  DropoutMask mask;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    const std::int64_t first = (first_row + n) * C + c;
    float values[width];
    load(x.at(n, c), values);
    if constexpr (width == 1) {
      values[0] = mask.keeps(first) ? values[0] * factor : 0.0f;
    } else {
#pragma unroll
      for (int i = 0; i < width; i += 4) {
        const Philox random = mask.random(first / 4 + i / 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) values[i + j] = random.words[j] >= mask.threshold ? values[i + j] * factor : 0.0f;
      }
    }
    store(values, y.at(n, c));
  }
};

}  // namespace

void dropout(Context& context, const Tensor& x, const Tensor& y, const Dropout& with, std::int64_t op, std::int64_t first_row) {
  check_dropout(x, y, with);
  with_cuda_float("dropout", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&x, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_parts_of_sequences(with.rows, first_row, x.rows(), [&](std::int64_t begin, std::int64_t end, std::int64_t first) {
        const Tensor from = x.slice_rows(begin, end), to = y.slice_rows(begin, end);
        for_each_vector<width>(context, end - begin, x.cols(),
                               DropVectors<width, T>{rows_of<const T>(from), rows_of<T>(to), x.cols(), first,
                                                     float(1 / (1 - with.probability)), DropoutMask::of(with, op)});
      });
    });
  });
}

}  // namespace mst::cuda
