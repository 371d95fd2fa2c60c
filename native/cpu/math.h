// exp and tanh that become vectors: polynomials for f32, the C library for f64. Errors are the largest seen over all of the range,
// against f64 (test/native/cpu_math_test.cpp).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectorize.h"

namespace mst::cpu {

// e^x within 1.3 ulp; 0 below -87.3 (results that would be denormal), infinity above 88.7; NaN stays NaN.
// x = k ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, the last terms adjusted; 2^k through the exponent bits.
MST_INLINE float exp(float x) {
  constexpr float log2_e = 1.44269504089f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  constexpr float round_to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves no room for a fraction
  const float clamped = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
  const float k = (clamped * log2_e + round_to_integer) - round_to_integer;
  const float r = (clamped - k * ln2_high) - k * ln2_low;
  float polynomial = 1.0f / 5040;
  polynomial = polynomial * r + 1.0f / 720;
  polynomial = polynomial * r + 1.0f / 120;
  polynomial = polynomial * r + 1.0f / 24;
  polynomial = polynomial * r + 1.0f / 6;
  polynomial = polynomial * r + 0.5f;
  polynomial = (polynomial * r) * r + r + 1.0f;
  // 2^k in two factors: k = 128 has no exponent of its own.
  const std::int32_t exponent = static_cast<std::int32_t>(k);
  const std::int32_t half = exponent >> 1;
  const std::int32_t first_bits = (half + 127) << 23, second_bits = (exponent - half + 127) << 23;
  float first, second;
  std::memcpy(&first, &first_bits, sizeof first);
  std::memcpy(&second, &second_bits, sizeof second);
  const float result = polynomial * first * second;
  const float below = x < -87.3f ? 0.0f : result;
  const float above = x > 88.7f ? __builtin_inff() : below;
  return x != x ? x : above;
}
MST_INLINE double exp(double x) {
  return std::exp(x);
}

// tanh within 3 ulp: an odd polynomial below 0.625 (coefficients of the Cephes library), 1 - 2 / (e^2x + 1) above.
MST_INLINE float tanh(float x) {
  const float magnitude = x < 0 ? -x : x;
  const float square = x * x;
  float polynomial = -5.70498872745e-3f;
  polynomial = polynomial * square + 2.06390887954e-2f;
  polynomial = polynomial * square - 5.37397155531e-2f;
  polynomial = polynomial * square + 1.33314422036e-1f;
  polynomial = polynomial * square - 3.33332819422e-1f;
  const float small = polynomial * square * x + x;
  const float large = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  return magnitude < 0.625f ? small : x != x ? x : x < 0 ? -large : large;
}
MST_INLINE double tanh(double x) {
  return std::tanh(x);
}

template <class S>
MST_INLINE S sigmoid(S x) {
  return S(1) / (S(1) + exp(-x));
}

}  // namespace mst::cpu
