// AdamW; see adamw.h.
#include "adamw.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"
#include "../dynamic_map.h"

namespace mst::cpu {
namespace {

template <class S>
struct Update {
  S learning_rate, beta1, beta2, eps, decay, correction1, correction2, gradient_factor;
};

// P is the type of what is updated: the parameter, or its f32 master. `rounded` becomes the rounding of the master; null if there is none.
template <class P, class T, class G, class S>
MST_CLONES void update(P* parameter, T* rounded, const G* gradient, S* m, S* v, const Update<S>& u, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const S g = static_cast<S>(gradient[i]) * u.gradient_factor;
    m[i] = u.beta1 * m[i] + (S(1) - u.beta1) * g;
    v[i] = u.beta2 * v[i] + (S(1) - u.beta2) * g * g;
    const S step = u.learning_rate * (m[i] * u.correction1) / (std::sqrt(v[i] * u.correction2) + u.eps);
    const S updated = static_cast<S>(parameter[i]) * u.decay - step;
    parameter[i] = P(updated);
    if (rounded) rounded[i] = T(updated);
  }
}

// What the random bits depend on. `begin` is the index of the first element in the whole parameter.
struct Rounding {
  std::int64_t begin;
  PhiloxKeys keys;
  std::int64_t op, step;

  std::uint32_t of_parameter(std::int64_t i) const {
    return rounding_words((begin + i) / 4, keys, op, step).words[(begin + i) % 4];
  }
  std::uint32_t of_states(std::int64_t i) const {
    return state_words((begin + i) / 4, keys, op, step).words[(begin + i) % 4];
  }
};

bf16 rounded_at_random(float value, std::uint32_t random) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bf16 rounded;
  rounded.bits = static_cast<std::uint16_t>(round_at_random(bits, random));
  return rounded;
}

// update() for a bf16 parameter without master.
template <class G>
void update_at_random(bf16* parameter, const G* gradient, float* m, float* v, const Update<float>& u, std::int64_t n,
                      const Rounding& rounding) {
  float wide[adamw_block];
  for (std::int64_t first = 0; first < n; first += adamw_block) {
    const std::int64_t count = std::min(adamw_block, n - first);
    for (std::int64_t i = 0; i < count; ++i) wide[i] = static_cast<float>(parameter[first + i]);
    update(wide, static_cast<float*>(nullptr), gradient + first, m + first, v + first, u, count);
    for (std::int64_t i = 0; i < count; ++i) parameter[first + i] = rounded_at_random(wide[i], rounding.of_parameter(first + i));
  }
}

// Convert m or v of a block to f32 and back.
void widen(const bf16* states, float, float* values, std::int64_t n, bool) {
  for (std::int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(states[i]);
}
void widen(const std::uint8_t* states, float scale, float* values, std::int64_t n, bool is_signed) {
  for (std::int64_t i = 0; i < n; ++i)
    values[i] = scale * (is_signed ? signed_value(signed_map.magnitudes, states[i]) : unsigned_value(unsigned_map.magnitudes, states[i]));
}
void narrow(const float* values, bf16* states, float&, std::int64_t n, bool is_signed, const Rounding& rounding) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t word = rounding.of_states(i);
    states[i] = rounded_at_random(values[i], is_signed ? word : word >> 16);
  }
}
void narrow(const float* values, std::uint8_t* states, float& scale, std::int64_t n, bool is_signed, const Rounding& rounding) {
  scale = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(values[i]);
    if (!(magnitude <= scale)) scale = magnitude;  // also true if the magnitude is NaN, which then stays
    if (scale != scale) break;
  }
  scale /= is_signed ? signed_map.largest() : unsigned_map.largest();
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t word = rounding.of_states(i);
    const float magnitude = scaled_magnitude(std::abs(values[i]), scale);
    states[i] = is_signed ? signed_code(magnitude_at_random<true>(signed_map.magnitudes, magnitude, word), values[i] < 0)
                          : positive_code(magnitude_at_random<false>(unsigned_map.magnitudes, magnitude, word >> 16), values[i]);
  }
}

// Updates a part of the parameter whose states M are bf16 or u8. It must begin where a block does.
template <class T, class G, class M>
void update_narrow(T* parameter, float* master, const G* gradient, const AdamwStates& states, const Update<float>& u, std::int64_t begin,
                   std::int64_t end, const Rounding& of_part) {
  Rounding rounding = of_part;
  float m[adamw_block], v[adamw_block], unscaled = 1;
  for (std::int64_t first = begin; first < end; first += adamw_block) {
    const std::int64_t n = std::min(adamw_block, end - first), block = first / adamw_block;
    M *const m_part = states.m.as<M>() + first, *const v_part = states.v.as<M>() + first;
    float& m_scale = states.m_scales ? states.m_scales->as<float>()[block] : unscaled;
    float& v_scale = states.v_scales ? states.v_scales->as<float>()[block] : unscaled;
    rounding.begin = of_part.begin + first;
    widen(m_part, m_scale, m, n, true);
    widen(v_part, v_scale, v, n, false);
    if (master)
      update(master + first, parameter + first, gradient + first, m, v, u, n);
    else if constexpr (std::is_same_v<T, bf16>)
      update_at_random(parameter + first, gradient + first, m, v, u, n, rounding);
    else
      update(parameter + first, static_cast<T*>(nullptr), gradient + first, m, v, u, n);
    narrow(m, m_part, m_scale, n, true, rounding);
    narrow(v, v_part, v_scale, n, false, rounding);
  }
}

bool is_finite(const OptionalTensor& factor) {
  if (!factor) return true;
  return factor->dtype == Dtype::f64 ? std::isfinite(factor->as<double>()[0]) : std::isfinite(factor->as<float>()[0]);
}

}  // namespace

void adamw_count(Context&, const Tensor& num_steps, const OptionalTensor& gradient_factor) {
  if (is_finite(gradient_factor)) num_steps.as<std::int32_t>()[0] += 1;
}

void adamw(Context&, const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const AdamwStates& states,
           const OptionalTensor& gradient_factor, const Tensor& num_steps, const AdamwSettings& settings) {
  check_adamw(parameter, master, gradient, states, settings);
  if (!is_finite(gradient_factor)) return;
  const std::int32_t step = num_steps.as<std::int32_t>()[0];
  MST_CHECK(step >= 1, "adamw: num_steps must be at least 1, got ", step);
  with_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    const auto& [learning_rate, beta1, beta2, eps, weight_decay, seed, op, part] = settings;
    const Update<S> u{S(learning_rate),
                      S(beta1),
                      S(beta2),
                      S(eps),
                      S(1 - learning_rate * weight_decay),
                      S(1 / (1 - std::pow(beta1, static_cast<double>(step)))),
                      S(1 / (1 - std::pow(beta2, static_cast<double>(step)))),
                      gradient_factor ? gradient_factor->as<S>()[0] : S(1)};
    const Rounding rounding{part, rounding_keys(seed), op, step};
    S* const copy = master ? master->as<S>() : nullptr;
    with_gradient<S>("adamw", gradient.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const G* const g = gradient.as<G>();
      T* const p = parameter.as<T>();
      if constexpr (!std::is_same_v<S, double>) {
        if (states.m.dtype != Dtype::f32) {
          return parallel_for(blocks_of(parameter), 64, [&](std::int64_t first, std::int64_t last) {
            const std::int64_t begin = first * adamw_block, end = std::min(last * adamw_block, parameter.size());
            if (states.m.dtype == Dtype::bf16)
              update_narrow<T, G, bf16>(p, copy, g, states, u, begin, end, rounding);
            else
              update_narrow<T, G, std::uint8_t>(p, copy, g, states, u, begin, end, rounding);
          });
        }
      }
      parallel_for(parameter.size(), 16384, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t n = end - begin;
        S *const m = states.m.as<S>() + begin, *const v = states.v.as<S>() + begin;
        if (copy)
          update(copy + begin, p + begin, g + begin, m, v, u, n);
        else if constexpr (std::is_same_v<T, bf16>)
          update_at_random(p + begin, g + begin, m, v, u, n, {part + begin, rounding.keys, op, step});
        else
          update(p + begin, static_cast<T*>(nullptr), g + begin, m, v, u, n);
      });
    });
  });
}

}  // namespace mst::cpu

namespace mst {

void check_adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const AdamwStates& states,
                 const AdamwSettings& settings) {
  MST_CHECK(settings.first >= 0 && settings.first % adamw_block == 0, "adamw: first ", settings.first, " is not a multiple of ",
            adamw_block);
  const auto& [m, v, m_scales, v_scales] = states;
  for (const Tensor* tensor : {&gradient, &m, &v})
    MST_CHECK(tensor->size() == parameter.size(), "adamw: ", *tensor, " does not have the size of ", parameter);
  MST_CHECK(!master || master->size() == parameter.size(), "adamw: master ", *master, " does not have the size of ", parameter);
  const Dtype wide = compute_dtype(parameter.dtype);
  const bool is_known = m.dtype == wide || (wide == Dtype::f32 && (m.dtype == Dtype::bf16 || m.dtype == Dtype::u8));
  MST_CHECK(is_known && v.dtype == m.dtype, "adamw: m ", m, " and v ", v, " do not have a dtype for states of ", parameter);
  const bool is_scaled = m.dtype == Dtype::u8;
  MST_CHECK(m_scales.has_value() == is_scaled && v_scales.has_value() == is_scaled, "adamw: states in ", name_of(m.dtype),
            is_scaled ? " need scales" : " take no scales");
  for (const OptionalTensor* scales : {&m_scales, &v_scales})
    MST_CHECK(!*scales || (*scales)->size() == blocks_of(parameter), "adamw: scales ", **scales, " must be (", blocks_of(parameter),
              ") for ", parameter);
}

}  // namespace mst
