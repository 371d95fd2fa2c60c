// Softmax cross-entropy in place; see cross_entropy.h.
#include "cross_entropy.h"

#include <cmath>
#include <type_traits>

#include "../cpu/math.h"
#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

struct Parameters {
  double label_smoothing, z_loss, softcap;
  bool wants_sum, wants_entropy;
};

// Maximum and sums of a row's logits z.
template <class S>
struct RowSums {
  S max, sum_exp, sum, sum_exp_z;  // sum_exp and sum_exp_z: of exp(z - max)
};

template <bool capped, class S, class T>
MST_INLINE S logit(const T* row, std::int64_t v, S softcap) {
  const S z = static_cast<S>(row[v]);
  if constexpr (capped)
    return softcap * tanh(z / softcap);
  else
    return z;
}

template <bool capped, class T, class S>
MST_CLONES RowSums<S> read_row(const T* row, std::int64_t V, const Parameters& p) {
  const S softcap = S(p.softcap);
  RowSums<S> result{};
  result.max = lane_max<S>(V, [&](std::int64_t v) { return logit<capped>(row, v, softcap); });
  // Subtracting the maximum keeps exp() in (0,1]. In a row of -inf nothing is subtracted, so that the result is 0 and not NaN.
  const S shift = std::isfinite(result.max) ? result.max : S(0);
  result.sum_exp = lane_sum<S>(V, [&](std::int64_t v) { return exp(logit<capped>(row, v, softcap) - shift); });
  if (p.wants_sum) result.sum = lane_sum<S>(V, [&](std::int64_t v) { return logit<capped>(row, v, softcap); });
  if (p.wants_entropy)
    result.sum_exp_z = lane_sum<S>(V, [&](std::int64_t v) {
      const S z = logit<capped>(row, v, softcap), e = exp(z - shift);
      return e > S(0) ? e * z : S(0);  // 0 * -inf counts as 0
    });
  return result;
}

// row[v] = (softmax * scale - smoothing) * weight * (1 - (z/c)²). The caller subtracts the target's share.
template <bool capped, class T, class S>
MST_CLONES void write_row(T* row, std::int64_t V, S shift, S inverse_sum, S smoothing, S weight, S softcap) {
  for (std::int64_t v = 0; v < V; ++v) {
    const S z = logit<capped>(row, v, softcap);
    S d = (exp(z - shift) * inverse_sum - smoothing) * weight;
    if constexpr (capped) d *= S(1) - (z / softcap) * (z / softcap);
    row[v] = T(d);
  }
}

template <class T, class S>
bool is_first_maximum(const T* row, std::int64_t V, std::int64_t target) {
  // The soft-cap is monotonic, so raw logits decide.
  const S largest = static_cast<S>(row[target]);
  for (std::int64_t v = 0; v < V; ++v)
    if (static_cast<S>(row[v]) > largest || (v < target && static_cast<S>(row[v]) == largest)) return false;
  return true;
}

template <class S>
void set(const OptionalTensor& tensor, std::int64_t m, double value) {
  if (tensor) tensor->as<S>()[m] = S(value);
}

}  // namespace

void cross_entropy(Context&, const Tensor& logits, const LossTargets& targets, const TokenOutputs& outputs, const LossOptions& options,
                   std::int64_t first_row, bool write_dlogits) {
  const std::int64_t M = logits.rows(), V = logits.cols();
  check_loss("cross_entropy", {"logits", logits}, targets, outputs);
  const auto& [losses, lse, log_probability, entropy, correct] = outputs;
  const auto& [ignore_index, label_smoothing, z_loss, softcap] = options;
  const Parameters parameters{label_smoothing, z_loss, softcap, label_smoothing > 0, entropy.has_value()};
  with_float("cross_entropy", logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    const auto run_row = [&](std::int64_t m, auto capped_tag) {
      constexpr bool capped = decltype(capped_tag)::value;
      T* const row = logits.row<T>(m);
      const std::int64_t target = targets.ids.as<std::int32_t>()[m];
      if (target == ignore_index) {
        losses.as<S>()[m] = S(0);
        for (const OptionalTensor* output : {&lse, &log_probability, &entropy, &correct}) set<S>(*output, m, 0);
        if (write_dlogits) std::fill(row, row + V, T(S(0)));
        return;
      }
      MST_CHECK(target >= 0 && target < V, "cross_entropy: row ", first_row + m, " has target ", target, ", outside [0, ", V, ")");
      const RowSums<S> sums = read_row<capped, T, S>(row, V, parameters);
      const S shift = std::isfinite(sums.max) ? sums.max : S(0);
      const double row_lse = static_cast<double>(shift) + std::log(static_cast<double>(sums.sum_exp));
      const double z_target = static_cast<double>(logit<capped>(row, target, S(softcap)));
      double loss = row_lse - (1 - label_smoothing) * z_target + z_loss * row_lse * row_lse;
      if (label_smoothing > 0) loss -= label_smoothing * static_cast<double>(sums.sum) / static_cast<double>(V);
      losses.as<S>()[m] = S(loss);
      set<S>(lse, m, row_lse);
      set<S>(log_probability, m, z_target - row_lse);
      set<S>(entropy, m, row_lse - static_cast<double>(sums.sum_exp_z) / static_cast<double>(sums.sum_exp));
      if (correct) set<S>(correct, m, is_first_maximum<T, S>(row, V, target) ? 1 : 0);
      if (!write_dlogits) return;
      const double weight = targets.weights ? static_cast<double>(targets.weights->as<S>()[m]) : 1.0;
      const S inverse_sum = S((1 + 2 * z_loss * row_lse) / static_cast<double>(sums.sum_exp));
      const double smoothing = label_smoothing / static_cast<double>(V);
      // The target's element is computed separately, before its logit is overwritten, and rounded once.
      double d = std::exp(z_target - static_cast<double>(shift)) * static_cast<double>(inverse_sum) - smoothing - (1 - label_smoothing);
      if constexpr (capped) d *= 1 - (z_target / softcap) * (z_target / softcap);
      write_row<capped, T, S>(row, V, shift, inverse_sum, S(smoothing), S(weight), S(softcap));
      row[target] = T(S(d * weight));
    };
    parallel_for(M, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t m = begin; m < end; ++m) {
        if (softcap > 0)
          run_row(m, std::true_type{});
        else
          run_row(m, std::false_type{});
      }
    });
  });
}

void cross_entropy_sum(Context&, const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale) {
  check_loss_sum(losses, token_weights, loss);
  with_float("cross_entropy_sum", losses.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    double total = 0;
    for (std::int64_t n = 0; n < losses.size(); ++n)
      total += static_cast<double>(losses.as<S>()[n]) * (token_weights ? static_cast<double>(token_weights->as<S>()[n]) : 1.0);
    *loss.as<S>() = S(total * scale);
  });
}

void cross_entropy_divisor(Context&, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor,
                           std::int64_t ignore_index) {
  check_loss_divisor(targets, token_weights, divisor);
  with_float("cross_entropy_divisor", divisor.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    double total = 0;
    bool any = false;
    for (std::int64_t n = 0; n < targets.size(); ++n) {
      if (targets.as<std::int32_t>()[n] == ignore_index) continue;
      any = true;
      total += token_weights ? static_cast<double>(token_weights->as<S>()[n]) : 1.0;
    }
    *divisor.as<S>() = S(any ? total : 1.0);
  });
}

}  // namespace mst::cpu
