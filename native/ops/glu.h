// Gated linear units: swiglu = silu(gate) * up (Shazeer 2020, arXiv 2002.05202); geglu = gelu(gate) * up with the tanh form of gelu.
#pragma once

#include "../runtime/kernel.h"

namespace mst {

enum class Activation : std::int64_t { silu = 0, gelu_tanh = 1 };

// y (M,F) = act(gate (M,F)) * up (M,F), any row strides. y may be gate or up.
KERNEL(glu_forward, const Tensor& gate, const Tensor& up, const Tensor& y, Activation activation);

// dgate (M,F) = dy * up * act'(gate), dup (M,F) = dy * act(gate), and again y (M,F) = act(gate) * up (absent: skipped). All three may
// overwrite inputs: chunked_mlp passes gate, up and dy as outputs.
KERNEL(glu_backward, const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
       const OptionalTensor& y, Activation activation);

// Throw if shapes or dtypes of the operands do not match.
void check_glu_forward(const Tensor& gate, const Tensor& up, const Tensor& y);
void check_glu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
                        const OptionalTensor& y);

}  // namespace mst
