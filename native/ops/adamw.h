// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): Adam with decoupled weight decay.
#pragma once

#include "../kernel.h"

namespace mst {

// With g = gradient * gradient_factor (1,) (absent: 1), at step t >= 1, all in f32 (f64 for f64):
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
//   p = p (1 - lr * weight_decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// parameter, m and v are overwritten; m, v and gradient in the compute dtype. master, the f32 copy of a bf16 parameter, if present, is
// what is updated, and parameter becomes its rounding. A gradient_factor that is NaN changes nothing.
KERNEL(adamw, const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
       const OptionalTensor& gradient_factor, double learning_rate, double beta1, double beta2, double eps, double weight_decay,
       std::int64_t step);

}  // namespace mst
