// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): Adam with decoupled weight decay.
#pragma once

#include "../kernel.h"
#include "../philox.h"

namespace mst {

// num_steps (1,) i32 += 1, unless gradient_factor (1,) (absent: 1) is NaN or infinite.
KERNEL(adamw_count, const Tensor& num_steps, const OptionalTensor& gradient_factor);

// With g = gradient * gradient_factor (1,) (absent: 1), at step t = num_steps (1,) i32 >= 1, all in f32 (f64 for f64):
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
//   p = p (1 - lr * weight_decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// parameter, m and v are overwritten; m, v and gradient in the compute dtype, gradient also in bf16. master, the f32 copy of a bf16
// parameter, if present, is what is updated, and parameter becomes its rounding. A bf16 parameter without master is rounded up or down at
// random, up with the probability that keeps the mean: to the f32 bits of element i are added the lower 16 bits of word i % 4 of
// Philox4x32-10 with key = (seed low word, seed high word) and counter = (i / 4 low word, i / 4 high word, op, t), and the lower half is
// cut off. A gradient_factor that is NaN or infinite changes nothing.
KERNEL(adamw, const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
       const OptionalTensor& gradient_factor, const Tensor& num_steps, double learning_rate, double beta1, double beta2, double eps,
       double weight_decay, std::int64_t seed, std::int64_t op);

// bf16 bits of a value, rounded up or down by 16 random bits; NaN and infinities as they are.
MST_HOST_DEVICE inline std::uint32_t round_at_random(std::uint32_t f32_bits, std::uint32_t random) {
  const bool is_finite = (f32_bits & 0x7F800000u) != 0x7F800000u;
  return (is_finite ? f32_bits + (random & 0xFFFFu) : f32_bits) >> 16;
}

// The random words of elements 4j to 4j + 3.
MST_HOST_DEVICE inline Philox rounding_words(std::int64_t j, std::int64_t seed, std::int64_t op, std::int64_t step) {
  return philox({{static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(j >> 32), static_cast<std::uint32_t>(op),
                  static_cast<std::uint32_t>(step)}},
                static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

// The random word of element i.
MST_HOST_DEVICE inline std::uint32_t rounding_word(std::int64_t i, std::int64_t seed, std::int64_t op, std::int64_t step) {
  return rounding_words(i / 4, seed, op, step).words[i % 4];
}

}  // namespace mst
