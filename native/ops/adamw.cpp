// AdamW; see adamw.h.
#include "adamw.h"

#include <cmath>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

template <class S>
struct Update {
  S learning_rate, beta1, beta2, eps, decay, correction1, correction2, gradient_factor;
};

// P: type of what is updated (the parameter, or its f32 master); rounded (null where there is no master) becomes its rounding.
template <class P, class T, class S>
MST_CLONES void update(P* parameter, T* rounded, const S* gradient, S* m, S* v, const Update<S>& u, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const S g = gradient[i] * u.gradient_factor;
    m[i] = u.beta1 * m[i] + (S(1) - u.beta1) * g;
    v[i] = u.beta2 * v[i] + (S(1) - u.beta2) * g * g;
    const S step = u.learning_rate * (m[i] * u.correction1) / (std::sqrt(v[i] * u.correction2) + u.eps);
    const S updated = static_cast<S>(parameter[i]) * u.decay - step;
    parameter[i] = P(updated);
    if (rounded) rounded[i] = T(updated);
  }
}

}  // namespace

void adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
           const OptionalTensor& gradient_factor, double learning_rate, double beta1, double beta2, double eps, double weight_decay,
           std::int64_t step) {
  MST_CHECK(step >= 1, "adamw: step must be at least 1, got ", step);
  for (const Tensor* tensor : {&gradient, &m, &v})
    MST_CHECK(tensor->size() == parameter.size(), "adamw: ", *tensor, " does not have the size of ", parameter);
  with_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    const S factor = gradient_factor ? gradient_factor->as<S>()[0] : S(1);
    if (!std::isfinite(factor)) return;
    const Update<S> u{S(learning_rate),
                      S(beta1),
                      S(beta2),
                      S(eps),
                      S(1 - learning_rate * weight_decay),
                      S(1 / (1 - std::pow(beta1, static_cast<double>(step)))),
                      S(1 / (1 - std::pow(beta2, static_cast<double>(step)))),
                      factor};
    parallel_for(parameter.size(), 16384, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t n = end - begin;
      const S* const g = gradient.as<S>() + begin;
      if (master)
        update<S, T, S>(master->as<S>() + begin, parameter.as<T>() + begin, g, m.as<S>() + begin, v.as<S>() + begin, u, n);
      else
        update<T, T, S>(parameter.as<T>() + begin, nullptr, g, m.as<S>() + begin, v.as<S>() + begin, u, n);
    });
  });
}

}  // namespace mst::cpu
