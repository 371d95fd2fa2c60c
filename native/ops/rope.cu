// Rotary position embedding; see rope.h.
#include "rope.h"

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

// One thread a pair d of one row n, for all heads: the angle is formed once.
template <class T>
__global__ void rope_kernel(const T* x, T* y, const double* inverse_frequencies, const std::int32_t* document_start, std::int64_t N,
                            std::int64_t sequence_length, std::int64_t half, std::int64_t num_heads, std::int64_t x_stride,
                            std::int64_t y_stride, float scale, bool inverse) {
  constexpr double two_pi = 6.283185307179586;
  for (std::int64_t i = grid_thread(); i < N * half; i += grid_threads()) {
    const std::int64_t n = i / half, d = i % half;
    const std::int64_t position = document_start ? n - document_start[n] : n % sequence_length;
    const double angle = static_cast<double>(position) * inverse_frequencies[d];
    // reduced in f64, after which f32 is enough
    const float reduced = static_cast<float>(angle - two_pi * rint(angle / two_pi));
    const float cosine = cosf(reduced) * scale, sine = (inverse ? -sinf(reduced) : sinf(reduced)) * scale;
    for (std::int64_t h = 0; h < num_heads; ++h) {
      const T* const from = x + n * x_stride + h * 2 * half + d;
      T* const to = y + n * y_stride + h * 2 * half + d;
      const float first = to_float(from[0]), second = to_float(from[half]);
      to[0] = from_float<T>(first * cosine - second * sine);
      to[half] = from_float<T>(second * cosine + first * sine);
    }
  }
}

}  // namespace

void rope(const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y, std::int64_t T,
          std::int64_t D, double scale, bool inverse) {
  const std::int64_t N = x.rows(), half = D / 2;
  if (N == 0) return;
  with_cuda_float("rope", x.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    launch(rope_kernel<E>, grid_for(N * half, 128), 128, 0, x.as<const E>(), y.as<E>(), inverse_frequencies.as<const double>(),
           document_start ? document_start->as<const std::int32_t>() : nullptr, N, T, half, x.cols() / D, x.row_stride, y.row_stride,
           float(scale), inverse);
  });
}

}  // namespace mst::cuda
