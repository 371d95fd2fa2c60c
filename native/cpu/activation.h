// Activations of gated linear units and their slopes; see ../ops/glu.h.
#pragma once

#include "../ops/glu.h"
#include "math.h"

namespace mst::cpu {

// value = act(x), slope = act'(x)
template <class S>
struct ActivationResult {
  S value, slope;
};

template <Activation activation, class S>
MST_INLINE ActivationResult<S> activate(S x) {
  if constexpr (activation == Activation::silu) {
    const S s = sigmoid(x);
    return {x * s, s * (S(1) + x * (S(1) - s))};
  } else {
    // gelu(x) = x/2 (1 + tanh u), u = sqrt(2/π) (x + 0.044715 x³)
    const S k = S(0.7978845608028654), a = S(0.044715);
    const S t = tanh(k * (x + a * x * x * x));
    const S du = k * (S(1) + S(3) * a * x * x);
    return {S(0.5) * x * (S(1) + t), S(0.5) * (S(1) + t) + S(0.5) * x * (S(1) - t * t) * du};
  }
}

}  // namespace mst::cpu
