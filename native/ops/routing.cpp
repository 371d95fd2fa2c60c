// Routes tokens to experts; see routing.h.
#include "routing.h"

#include <algorithm>
#include <cmath>

#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

template <class T, class S>
void probabilities_of(const T* logits, S* probabilities, std::int64_t E) {
  S largest = static_cast<S>(logits[0]), sum = 0;
  for (std::int64_t e = 1; e < E; ++e) largest = std::max(largest, static_cast<S>(logits[e]));
  for (std::int64_t e = 0; e < E; ++e) sum += probabilities[e] = std::exp(static_cast<S>(logits[e]) - largest);
  for (std::int64_t e = 0; e < E; ++e) probabilities[e] /= sum;
}

// The first of the largest that come after expert `before` in the order of falling probability; `fallback` if there is none, as of NaN.
template <class S>
std::int32_t next_expert(const S* probabilities, std::int64_t E, std::int32_t before, std::int32_t fallback) {
  std::int32_t next = -1;
  for (std::int32_t e = 0; e < E; ++e) {
    const S p = probabilities[e];
    const bool is_left = before < 0 || p < probabilities[before] || (p == probabilities[before] && e > before);
    if (is_left && (next < 0 ? p == p : p > probabilities[next])) next = e;
  }
  return next < 0 ? fallback : next;
}

template <class S>
void choose(const S* probabilities, std::int64_t E, std::int32_t* experts, S* weights, std::int64_t k, bool normalized) {
  S sum = 0;
  for (std::int32_t j = 0; j < k; ++j) {
    experts[j] = next_expert(probabilities, E, j == 0 ? -1 : experts[j - 1], j);
    sum += weights[j] = probabilities[experts[j]];
  }
  for (std::int64_t j = 0; normalized && j < k; ++j) weights[j] /= sum;
}

}  // namespace

void routing_forward(Context&, const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                     bool normalized) {
  check_routing_forward(logits, probabilities, experts, weights);
  with_float("routing_forward", logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(logits.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t m = begin; m < end; ++m) {
        probabilities_of(logits.row<T>(m), probabilities.row<S>(m), logits.cols());
        choose(probabilities.row<S>(m), logits.cols(), experts.row<std::int32_t>(m), weights.row<S>(m), experts.cols(), normalized);
      }
    });
  });
}

// With g the gradients of the probabilities, dlogits = p · (g - Σ p g). Of a weight p / Σ p of the chosen ones, g is (dw - Σ w dw) / Σ p.
void routing_backward(Context&, const Tensor& dweights, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                      const Tensor& dlogits, bool normalized) {
  check_routing_backward(dweights, probabilities, experts, weights, dlogits);
  const std::int64_t E = dlogits.cols(), k = experts.cols();
  with_float("routing_backward", dlogits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(dlogits.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t m = begin; m < end; ++m) {
        const S* const p = probabilities.row<S>(m);
        const S* const w = weights.row<S>(m);
        const S* const dw = dweights.row<S>(m);
        const std::int32_t* const chosen = experts.row<std::int32_t>(m);
        S of_weights = 0, sum = 0, of_all = 0;
        for (std::int64_t j = 0; j < k; ++j) of_weights += w[j] * dw[j], sum += p[chosen[j]];
        const auto gradient = [&](std::int64_t j) { return normalized ? (dw[j] - of_weights) / sum : dw[j]; };
        for (std::int64_t j = 0; j < k; ++j) of_all += p[chosen[j]] * gradient(j);
        T* const to = dlogits.row<T>(m);
        for (std::int64_t e = 0; e < E; ++e) to[e] = T(-p[e] * of_all);
        for (std::int64_t j = 0; j < k; ++j) to[chosen[j]] = T(p[chosen[j]] * (gradient(j) - of_all));
      }
    });
  });
}

void routing_sort(Context&, const Tensor& experts, const Tensor& offsets, const Tensor& order, const Tensor& places) {
  check_routing_sort(experts, offsets, order, places);
  const std::int64_t E = offsets.size() - 1, R = experts.size();
  const std::int32_t* const expert_of = experts.as<std::int32_t>();
  std::int32_t* const begins = offsets.as<std::int32_t>();
  std::fill(begins, begins + E + 1, 0);
  for (std::int64_t pair = 0; pair < R; ++pair) {
    const std::int32_t e = expert_of[pair];
    MST_CHECK(e >= 0 && e < E, "routing_sort: pair ", pair, " holds expert ", e, ", outside [0, ", E, ")");
    begins[e + 1] += 1;
  }
  for (std::int64_t e = 0; e < E; ++e) begins[e + 1] += begins[e];
  for (std::int32_t pair = 0; pair < R; ++pair) {  // begins[e] moves on to the end of expert e
    const std::int32_t place = begins[expert_of[pair]]++;
    order.as<std::int32_t>()[place] = pair;
    places.as<std::int32_t>()[pair] = place;
  }
  std::copy_backward(begins, begins + E, begins + E + 1);
  begins[0] = 0;
}

}  // namespace mst::cpu
