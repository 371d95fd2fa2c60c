// Functions that give up the last bits for speed if the result is rounded to bf16 anyway.
#pragma once

#include "launch.h"

namespace mst::cuda {

constexpr float log2_e = 1.4426950408889634f;

// 2^x within 2 units in the last place; 0 if the result would be denormal.
__device__ inline float exp2_approximate(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// e^x, as accurate as a result of type T needs.
template <class T>
__device__ inline float exponential(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return expf(x);
  else
    return exp2_approximate(x * log2_e);
}

// 1/(1 + e^-x), as accurate as a result of type T needs.
template <class T>
__device__ inline float sigmoid(float x) {
  const float divisor = 1.0f + exponential<T>(-x);
  if constexpr (sizeof(T) == sizeof(float))
    return 1.0f / divisor;
  else
    return __fdividef(1.0f, divisor);  // 0 for an infinite divisor
}

// tanh x, with an absolute error as small as a result of type T needs.
template <class T>
__device__ inline float hyperbolic_tangent(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return tanhf(x);
  else
    return 2.0f * sigmoid<T>(2.0f * x) - 1.0f;
}

// min(x, most); NaN stays NaN.
__device__ inline float at_most(float x, float most) {
#ifdef __CUDACC__
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(most));
  return y;
#else
  return x > most ? most : x;
#endif
}

// 1/x. |x| must be neither denormal nor above 2^126.
__device__ inline float reciprocal_approximate(float x) {
#ifdef __CUDACC__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// Replaces each x by tanh(scale · x), with the error of hyperbolic_tangent(). A NaN may make its neighbours NaN: a reciprocal costs as much
// as eight multiplications, so four reciprocals are computed from one, 1/a = bcd / abcd.
template <class T, int n>
__device__ inline void hyperbolic_tangents(float (&x)[n], float scale) {
  if constexpr (sizeof(T) == sizeof(float) || n % 4 != 0) {
#pragma unroll
    for (float& element : x) element = hyperbolic_tangent<T>(scale * element);
  } else {
    constexpr float most = 29;  // at e^2x = 2^29 tanh x already rounds to 1, and the product of four divisors is finite
    const float factor = 2.0f * log2_e * scale;
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = 1.0f + exp2_approximate(at_most(x[i] * factor, most));
#pragma unroll
    for (int i = 0; i < n; i += 4) {
      const float a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3], ab = a * b, cd = c * d;
      const float factor_of_all = -2.0f * reciprocal_approximate(ab * cd), of_ab = factor_of_all * cd, of_cd = factor_of_all * ab;
      x[i] = 1.0f + of_ab * b;
      x[i + 1] = 1.0f + of_ab * a;
      x[i + 2] = 1.0f + of_cd * d;
      x[i + 3] = 1.0f + of_cd * c;
    }
  }
}

}  // namespace mst::cuda
