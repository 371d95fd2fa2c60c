// Soft-capping of scores (Gemma 2, arXiv 2408.00118).
#pragma once

#include "../runtime/kernel.h"

namespace mst {

// y = cap * tanh(x / cap), element by element, one dtype; y may be x.
KERNEL(softcap_forward, const Tensor& x, const Tensor& y, double cap);

// dx = dy * (1 - (y / cap)²), from the forward's y; dx may be dy.
KERNEL(softcap_backward, const Tensor& dy, const Tensor& y, const Tensor& dx, double cap);

// Throw if shapes or dtypes of the operands do not match.
void check_softcap_forward(const Tensor& x, const Tensor& y);
void check_softcap_backward(const Tensor& dy, const Tensor& y, const Tensor& dx);

}  // namespace mst
