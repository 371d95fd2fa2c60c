// Dropout; see dropout.h.
#include "dropout.h"

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 256;

template <class T>
__global__ void dropout_kernel(const T* x, T* y, std::int64_t N, std::int64_t C, std::int64_t x_stride, std::int64_t y_stride,
                               std::int64_t first_row, float factor, DropoutMask mask) {
  for (std::int64_t i = grid_thread(); i < N * C; i += grid_threads()) {
    const std::int64_t n = i / C, c = i % C;
    const float value = mask.keeps(first_row * C + i) ? to_float(x[n * x_stride + c]) * factor : 0.0f;
    y[n * y_stride + c] = from_float<T>(value);
  }
}

}  // namespace

void dropout(const Tensor& x, const Tensor& y, double probability, std::int64_t first_row, std::int64_t seed, std::int64_t op,
             std::int64_t step) {
  MST_CHECK(x.rows() == y.rows() && x.cols() == y.cols(), "dropout: ", x, " and ", y, " differ in shape");
  MST_CHECK(probability >= 0 && probability < 1, "dropout: probability must be in [0, 1), got ", probability);
  if (x.size() == 0) return;
  with_cuda_float("dropout", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(dropout_kernel<T>, grid_for(x.size(), block_size), block_size, 0, x.as<const T>(), y.as<T>(), x.rows(), x.cols(), x.row_stride,
           y.row_stride, first_row, float(1 / (1 - probability)), DropoutMask::of(probability, seed, op, step));
  });
}

}  // namespace mst::cuda
