// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): Adam with decoupled weight decay.
#pragma once

#include "../philox.h"
#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

// num_steps (1,) i32 += 1, unless gradient_factor (1,) (absent: 1) is NaN or infinite.
KERNEL(adamw_count, const Tensor& num_steps, const OptionalTensor& gradient_factor);

struct AdamwSettings {
  double learning_rate, beta1, beta2, eps, weight_decay;
  std::int64_t seed, op;  // of random numbers: the run's seed and the parameter's number
  std::int64_t first;     // where `parameter` is a part of one: number of its first element there, a multiple of adamw_block

  static constexpr std::tuple fields{Field{"learningRate", &AdamwSettings::learning_rate},
                                     Field{"beta1", &AdamwSettings::beta1},
                                     Field{"beta2", &AdamwSettings::beta2},
                                     Field{"eps", &AdamwSettings::eps},
                                     Field{"weightDecay", &AdamwSettings::weight_decay},
                                     Field{"seed", &AdamwSettings::seed},
                                     Field{"op", &AdamwSettings::op},
                                     Field{"first", &AdamwSettings::first}};
};

// The moments m and v of a parameter with n elements: f32 (f64 if the parameter is f64), bf16 or u8. In u8 they are codes of dynamic_map.h
// in blocks of adamw_block elements, times the f32 scale of the block: m_scales and v_scales (⌈n / adamw_block⌉,), present with u8 only.
struct AdamwStates {
  Tensor m, v;
  OptionalTensor m_scales, v_scales;

  static constexpr std::tuple fields{Field{"m", &AdamwStates::m}, Field{"v", &AdamwStates::v}, Field{"mScales", &AdamwStates::m_scales},
                                     Field{"vScales", &AdamwStates::v_scales}};
};

constexpr std::int64_t adamw_block = 256;

inline std::int64_t blocks_of(const Tensor& parameter) {
  return (parameter.size() + adamw_block - 1) / adamw_block;
}

// With g = gradient * gradient_factor (1,) (absent: 1), at step t = num_steps (1,) i32 >= 1, computed in f32 (f64 for f64):
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
//   p = p (1 - lr * weight_decay) - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// parameter and states are overwritten. gradient is in the compute dtype or bf16. If there is a master, the f32 copy of a bf16 parameter,
// the update is applied to it, and parameter becomes its rounding. If gradient_factor is NaN or infinite, nothing changes.
//
// A bf16 parameter without master, and states in bf16 and u8, are rounded up or down at random, such that the mean is the exact value:
// rounding to nearest would lose changes that are small beside a value. Each rounding uses 16 bits of Philox4x32-10 with key (seed low
// word, seed high word), word i % 4 for element i of the whole parameter: for the parameter the lower half of the
// word, with counter (i / 4 low word, i / 4 high word, op, t); for m the lower and for v the upper half, with op + 2³¹. bf16: the bits are
// added to those of the f32, whose lower half is cut off. u8: by magnitude_at_random, on CUDA with the upper 15 of the 16 bits. A positive
// v never becomes 0, which would divide by eps.
// CUDA takes roots and quotients in f32 within 2 units in the last place, and quotients below 2^-126 as 0. The scales of a block are its
// largest |m| and largest v, each divided by the largest magnitude of its map. A NaN in a block makes its scale NaN, so that it is not
// lost.
KERNEL(adamw, const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const AdamwStates& states,
       const OptionalTensor& gradient_factor, const Tensor& num_steps, const AdamwSettings& settings);

// Throws if the sizes or dtypes of the arguments of an update do not match.
void check_adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const AdamwStates& states,
                 const AdamwSettings& settings);

// The bits of a value as bf16, rounded up or down by 16 random bits. NaN and infinities stay as they are.
MST_HOST_DEVICE inline std::uint32_t round_at_random(std::uint32_t f32_bits, std::uint32_t random) {
  const bool is_finite = (f32_bits & 0x7F800000u) != 0x7F800000u;
  return (is_finite ? f32_bits + (random & 0xFFFFu) : f32_bits) >> 16;
}

MST_HOST_DEVICE inline PhiloxKeys rounding_keys(std::int64_t seed) {
  return PhiloxKeys(static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

// The random words of elements 4j to 4j + 3 of the parameter.
MST_HOST_DEVICE inline Philox rounding_words(std::int64_t j, const PhiloxKeys& keys, std::int64_t op, std::int64_t step) {
  return philox({{static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(j >> 32), static_cast<std::uint32_t>(op),
                  static_cast<std::uint32_t>(step)}},
                keys);
}

// The random words of the states of these elements.
MST_HOST_DEVICE inline Philox state_words(std::int64_t j, const PhiloxKeys& keys, std::int64_t op, std::int64_t step) {
  return rounding_words(j, keys, op + (std::int64_t{1} << 31), step);
}

}  // namespace mst
