// Rotary position embedding; see rope.h.
#include "rope.h"

#include <cmath>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t max_pairs = 256;  // D / 2

template <class T, class S>
MST_CLONES void rotate(const T* x, T* y, const S* cosines, const S* sines, std::int64_t half) {
  MST_INDEPENDENT
  for (std::int64_t d = 0; d < half; ++d) {
    const S first = static_cast<S>(x[d]), second = static_cast<S>(x[d + half]);
    y[d] = T(first * cosines[d] - second * sines[d]);
    y[d + half] = T(second * cosines[d] + first * sines[d]);
  }
}

}  // namespace

void rope(Context&, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
          std::int64_t T, std::int64_t D, double scale, bool inverse) {
  check_rope(x, inverse_frequencies, document_start, y, T, D);
  const std::int64_t half = D / 2, num_heads = x.cols() / D;
  MST_CHECK(half <= max_pairs, "rope: head size ", D, " is over ", 2 * max_pairs);
  with_float("rope", x.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    using S = compute_t<E>;
    parallel_for(x.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      S cosines[max_pairs], sines[max_pairs];  // of one position, shared by its heads
      for (std::int64_t n = begin; n < end; ++n) {
        const std::int64_t position = document_start ? n - document_start->as<std::int32_t>()[n] : n % T;
        for (std::int64_t d = 0; d < half; ++d) {
          const double angle = static_cast<double>(position) * inverse_frequencies.as<double>()[d];
          cosines[d] = S(std::cos(angle) * scale);
          sines[d] = S(std::sin(inverse ? -angle : angle) * scale);
        }
        for (std::int64_t h = 0; h < num_heads; ++h) rotate<E, S>(x.row<E>(n) + h * D, y.row<E>(n) + h * D, cosines, sines, half);
      }
    });
  });
}

}  // namespace mst::cpu
