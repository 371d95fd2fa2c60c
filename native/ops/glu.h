// Gated linear units: swiglu = silu(gate) * up (Shazeer 2020, arXiv 2002.05202); geglu = gelu(gate) * up with the tanh form of gelu.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

enum class Activation : std::int64_t { silu = 0, gelu_tanh = 1 };

// y (M,F) = act(gate (M,F)) * up (M,F). y may be gate or up. Any row strides.
KERNEL(glu_forward, const Tensor& gate, const Tensor& up, const Tensor& y, Activation activation);

// dgate (M,F) = dy * up * act'(gate), dup (M,F) = dy * act(gate), y (M,F) = act(gate) * up again (absent: skipped).
// All three may overwrite inputs: chunked_mlp passes gate, up and dy themselves.
KERNEL(glu_backward, const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
       const OptionalTensor& y, Activation activation);

// Throw where operands do not go together.
void check_glu_forward(const Tensor& gate, const Tensor& up, const Tensor& y);
void check_glu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
                        const OptionalTensor& y);

}  // namespace mst
