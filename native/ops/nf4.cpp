// Weights in 4 bits; see nf4.h.
#include "nf4.h"

#include <algorithm>
#include <cmath>

#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

// The larger of two; NaN if one is NaN.
float larger(float a, float b) {
  return b > a || std::isnan(b) ? b : a;
}

// Writes the codes of one block and returns its largest magnitude.
template <class T>
float quantize_block(const T* x, std::int64_t size, std::uint8_t* codes) {
  float values[nf4_block] = {}, largest = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    values[i] = static_cast<float>(x[i]);
    largest = larger(largest, std::abs(values[i]));
  }
  const float inverse = nf4_inverse(largest);
  for (std::int64_t i = 0; i < size; i += 2)
    codes[i / 2] = static_cast<std::uint8_t>(nf4_values.code(values[i] * inverse) << 4 | nf4_values.code(values[i + 1] * inverse));
  return largest;
}

void quantize_largest(const float* largest, std::int64_t num_blocks, const Nf4& to) {
  double sum = 0;
  for (std::int64_t b = 0; b < num_blocks; ++b) sum += double(largest[b]);
  const float offset = num_blocks > 0 ? static_cast<float>(sum / double(num_blocks)) : 0.0f;
  *to.offset.as<float>() = offset;
  for (std::int64_t first = 0; first < num_blocks; first += nf4_blocks_group) {
    const std::int64_t end = std::min(first + nf4_blocks_group, num_blocks);
    float scale = 0;
    for (std::int64_t b = first; b < end; ++b) scale = larger(scale, std::abs(largest[b] - offset));
    to.scales.as<float>()[first / nf4_blocks_group] = scale;
    const float inverse = nf4_inverse(scale);
    for (std::int64_t b = first; b < end; ++b)
      to.absmax.as<std::uint8_t>()[b] = nf4_absmax_code(signed_map.magnitudes, (largest[b] - offset) * inverse);
  }
}

}  // namespace

void nf4_quantize(Context&, const Tensor& x, const Nf4& to, const Tensor& largest) {
  check_nf4_quantize(x, to, largest);
  const std::int64_t n = x.size(), num_blocks = largest.size();
  with_float("nf4_quantize", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(num_blocks, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        const std::int64_t first = b * nf4_block;
        largest.as<float>()[b] = quantize_block(x.as<T>() + first, std::min(nf4_block, n - first), to.codes.as<std::uint8_t>() + first / 2);
      }
    });
  });
  quantize_largest(largest.as<float>(), num_blocks, to);
}

void nf4_dequantize(Context&, const Nf4& from, const Tensor& y) {
  check_nf4_dequantize(from, y);
  const std::int64_t n = y.size();
  const std::uint8_t* const codes = from.codes.as<std::uint8_t>();
  const float offset = *from.offset.as<float>();
  with_float("nf4_dequantize", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(from.absmax.size(), 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        const float value = nf4_absmax_value(signed_map.magnitudes, from.absmax.as<std::uint8_t>()[b]);
        const float product = value * from.scales.as<float>()[b / nf4_blocks_group];
        const float largest = product + offset;
        for (std::int64_t i = b * nf4_block; i < std::min(n, (b + 1) * nf4_block); ++i) {
          const int code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
          y.as<T>()[i] = T(S(nf4_values.values[code] * largest));
        }
      }
    });
  });
}

}  // namespace mst::cpu
