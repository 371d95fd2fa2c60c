// Functions that trade the last bits for speed, where the result is rounded to bf16.
#pragma once

#include "launch.h"

namespace mst::cuda {

constexpr float log2_e = 1.4426950408889634f;

// 2^x to 2 units in the last place; 0 far below.
__device__ inline float exp2_approximate(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// e^x, as exact as results in T need.
template <class T>
__device__ inline float exponential(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return expf(x);
  else
    return exp2_approximate(x * log2_e);
}

// 1/(1 + e^-x), as exact as results in T need.
template <class T>
__device__ inline float sigmoid(float x) {
  const float divisor = 1.0f + exponential<T>(-x);
  if constexpr (sizeof(T) == sizeof(float))
    return 1.0f / divisor;
  else
    return __fdividef(1.0f, divisor);  // 0 for an infinite divisor
}

// tanh x, to an absolute error as small as results in T need.
template <class T>
__device__ inline float hyperbolic_tangent(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return tanhf(x);
  else
    return 2.0f * sigmoid<T>(2.0f * x) - 1.0f;
}

}  // namespace mst::cuda
