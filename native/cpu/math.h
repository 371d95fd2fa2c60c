// exp and tanh that the compiler can vectorize: polynomials for f32, the C library for f64. The stated errors are the largest over the
// whole range, against f64 (test/native/cpu_ops_test.cpp).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectorize.h"

namespace mst::cpu {

// x = k ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor polynomial of degree 7. x must be in [-87.3, 88.7] or NaN.
struct ReducedExp {
  float polynomial;
  std::int32_t k;
};
MST_INLINE ReducedExp reduce_exp(float x) {
  constexpr float log2_e = 1.44269504089f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  constexpr float round_to_integer = 12582912.0f;  // adding it rounds to an integer: no bit is left for a fraction
  const float k = (x * log2_e + round_to_integer) - round_to_integer;
  const float r = (x - k * ln2_high) - k * ln2_low;
  float polynomial = 1.0f / 5040;
  polynomial = polynomial * r + 1.0f / 720;
  polynomial = polynomial * r + 1.0f / 120;
  polynomial = polynomial * r + 1.0f / 24;
  polynomial = polynomial * r + 1.0f / 6;
  polynomial = polynomial * r + 0.5f;
  polynomial = (polynomial * r) * r + r + 1.0f;
  return {polynomial, static_cast<std::int32_t>(k)};
}

// 2^k, made from the bits of the exponent, for k >= -126; infinity for k = 128.
MST_INLINE float power_of_two(std::int32_t k) {
  const std::int32_t bits = (k + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

MST_INLINE float clamp_for_exp(float x) {
  return x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
}

// e^x within 1.3 ulp; 0 below -87.3, where results would be denormal, infinity above 88.7; NaN stays NaN.
MST_INLINE float exp(float x) {
  const auto [polynomial, k] = reduce_exp(clamp_for_exp(x));
  const std::int32_t half = k >> 1;  // 2^k in two factors: 2^128 is not an f32
  const float result = polynomial * power_of_two(half) * power_of_two(k - half);
  const float below = x < -87.3f ? 0.0f : result;
  const float above = x > 88.7f ? __builtin_inff() : below;
  return x != x ? x : above;
}

// e^x in fewer operations: the bits of exp(x) for x <= 88, infinity from 88.4 on. For softmax, where x is hardly ever above 0.
MST_INLINE float softmax_exp(float x) {
  const auto [polynomial, k] = reduce_exp(clamp_for_exp(x));
  const float result = polynomial * power_of_two(k);
  return x < -87.3f ? 0.0f : result;
}
MST_INLINE double softmax_exp(double x) {
  return std::exp(x);
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
