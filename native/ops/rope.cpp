// Rotary position embedding; see rope.h.
#include "rope.h"

#include <cmath>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t max_pairs = 256;  // R / 2

template <class T, class S>
MST_CLONES void rotate(const T* x, T* y, const S* cosines, const S* sines, std::int64_t half) {
  MST_INDEPENDENT
  for (std::int64_t d = 0; d < half; ++d) {
    const S first = static_cast<S>(x[d]), second = static_cast<S>(x[d + half]);
    y[d] = T(first * cosines[d] - second * sines[d]);
    y[d + half] = T(second * cosines[d] + first * sines[d]);
  }
}

template <class T, class S>
MST_CLONES void rotate_interleaved(const T* x, T* y, const S* cosines, const S* sines, std::int64_t half) {
  MST_INDEPENDENT
  for (std::int64_t d = 0; d < half; ++d) {
    const S first = static_cast<S>(x[2 * d]), second = static_cast<S>(x[2 * d + 1]);
    y[2 * d] = T(first * cosines[d] - second * sines[d]);
    y[2 * d + 1] = T(second * cosines[d] + first * sines[d]);
  }
}

}  // namespace

void rope(Context&, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
          const RopeOptions& options) {
  check_rope(x, inverse_frequencies, document_start, y, options);
  const std::int64_t half = inverse_frequencies.size(), num_heads = x.cols() / options.D;
  const bool grows = options.growth != 0;
  MST_CHECK(half <= max_pairs, "rope: ", 2 * half, " rotated columns of a head are over ", 2 * max_pairs);
  with_float("rope", x.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    using S = compute_t<E>;
    parallel_for(x.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      S cosines[max_pairs], sines[max_pairs];  // of one position, shared by its heads
      for (std::int64_t n = begin; n < end; ++n) {
        const std::int64_t position = document_start ? n - document_start->as<std::int32_t>()[n] : n % options.T;
        const double grown = grows ? 1 + options.growth * std::log1p(static_cast<double>(position / options.growth_positions)) : 1;
        for (std::int64_t d = 0; d < half; ++d) {
          const double angle = static_cast<double>(position) * inverse_frequencies.as<double>()[d];
          cosines[d] = S(std::cos(angle) * (options.scale * grown));
          sines[d] = S(std::sin(options.is_inverse ? -angle : angle) * (options.scale * grown));
        }
        for (std::int64_t h = 0; h < num_heads; ++h) {
          const E* const from = x.row<E>(n) + h * options.D;
          E* const to = y.row<E>(n) + h * options.D;
          if (options.is_interleaved)
            rotate_interleaved<E, S>(from, to, cosines, sines, half);
          else
            rotate<E, S>(from, to, cosines, sines, half);
          for (std::int64_t d = 2 * half; d < options.D; ++d) to[d] = grows ? E(static_cast<S>(from[d]) * S(grown)) : from[d];
        }
      }
    });
  });
}

}  // namespace mst::cpu
