// AdamW; see adamw.h.
#include "adamw.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

template <class S>
struct Update {
  S learning_rate, beta1, beta2, eps, decay, correction1, correction2, gradient_factor;
};

// P: type of what is updated (the parameter, or its f32 master); rounded (null where there is no master) becomes its rounding.
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

// As update() for a bf16 parameter without master; `begin` is the first element's place in the whole.
struct Rounding {
  std::int64_t begin, seed, op, step;
};
template <class G>
void update_at_random(bf16* parameter, const G* gradient, float* m, float* v, const Update<float>& u, std::int64_t n,
                      const Rounding& rounding) {
  float wide[256];
  for (std::int64_t first = 0; first < n; first += 256) {
    const std::int64_t count = std::min<std::int64_t>(256, n - first);
    for (std::int64_t i = 0; i < count; ++i) wide[i] = static_cast<float>(parameter[first + i]);
    update(wide, static_cast<float*>(nullptr), gradient + first, m + first, v + first, u, count);
    for (std::int64_t i = 0; i < count; ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, &wide[i], sizeof bits);
      const auto rounded = static_cast<std::uint16_t>(
          round_at_random(bits, rounding_word(rounding.begin + first + i, rounding.seed, rounding.op, rounding.step)));
      std::memcpy(&parameter[first + i], &rounded, sizeof rounded);
    }
  }
}

bool is_finite(const OptionalTensor& factor) {
  if (!factor) return true;
  return factor->dtype == Dtype::f64 ? std::isfinite(factor->as<double>()[0]) : std::isfinite(factor->as<float>()[0]);
}

}  // namespace

void adamw_count(const Tensor& num_steps, const OptionalTensor& gradient_factor) {
  if (is_finite(gradient_factor)) num_steps.as<std::int32_t>()[0] += 1;
}

void adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
           const OptionalTensor& gradient_factor, const Tensor& num_steps, double learning_rate, double beta1, double beta2, double eps,
           double weight_decay, std::int64_t seed, std::int64_t op) {
  for (const Tensor* tensor : {&gradient, &m, &v})
    MST_CHECK(tensor->size() == parameter.size(), "adamw: ", *tensor, " does not have the size of ", parameter);
  with_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    if (!is_finite(gradient_factor)) return;
    const S factor = gradient_factor ? gradient_factor->as<S>()[0] : S(1);
    const std::int32_t step = num_steps.as<std::int32_t>()[0];
    MST_CHECK(step >= 1, "adamw: num_steps must be at least 1, is ", step);
    const Update<S> u{S(learning_rate),
                      S(beta1),
                      S(beta2),
                      S(eps),
                      S(1 - learning_rate * weight_decay),
                      S(1 / (1 - std::pow(beta1, static_cast<double>(step)))),
                      S(1 / (1 - std::pow(beta2, static_cast<double>(step)))),
                      factor};
    with_gradient<S>("adamw", gradient.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      parallel_for(parameter.size(), 16384, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t n = end - begin;
        const G* const g = gradient.as<G>() + begin;
        S *const m_part = m.as<S>() + begin, *const v_part = v.as<S>() + begin;
        T* const part = parameter.as<T>() + begin;
        if (master)
          update(master->as<S>() + begin, part, g, m_part, v_part, u, n);
        else if constexpr (std::is_same_v<T, bf16>)
          update_at_random(part, g, m_part, v_part, u, n, {begin, seed, op, step});
        else
          update(part, static_cast<T*>(nullptr), g, m_part, v_part, u, n);
      });
    });
  });
}

}  // namespace mst::cpu
