// Activations of gated linear units and their slopes; see ../../ops/glu.h.
#pragma once

#include "../../ops/glu.h"
#include "math.h"

namespace mst::cuda {

struct ActivationResult {
  float value, slope;  // act(x), act'(x)
};

// As accurate as a result of type T needs.
template <Activation activation, class T>
__device__ inline ActivationResult activate(float x) {
  if constexpr (activation == Activation::silu) {
    const float s = sigmoid<T>(x);
    return {x * s, s * (1.0f + x * (1.0f - s))};
  } else {
    // gelu(x) = x/2 (1 + tanh u), u = sqrt(2/π) (x + 0.044715 x³)
    constexpr float k = 0.7978845608028654f, a = 0.044715f;
    const float t = tanhf(k * (x + a * x * x * x));
    const float du = k * (1.0f + 3.0f * a * x * x);
    return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * du};
  }
}

}  // namespace mst::cuda
