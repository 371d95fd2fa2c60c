// Attention of new tokens to kept keys and values; see cached_attention.h.
#include "cached_attention.h"

#include <cmath>
#include <limits>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

template <class T, class S>
MST_CLONES S dot(const T* a, const T* b, std::int64_t D) {
  return lane_sum<S>(D, [&](std::int64_t d) { return static_cast<S>(a[d]) * static_cast<S>(b[d]); });
}

template <class T, class S>
MST_CLONES void add_scaled(S* sum, const T* v, S old_factor, S factor, std::int64_t D) {
  MST_INDEPENDENT
  for (std::int64_t d = 0; d < D; ++d) sum[d] = sum[d] * old_factor + static_cast<S>(v[d]) * factor;
}

}  // namespace

void cached_attention(Context&, const AttentionInputs& inputs, const Tensor& out, std::int64_t position, const AttentionOptions& options) {
  const AttentionGeometry g = check_cached_attention(inputs, out, position, options);
  const auto& [q, k, v, document_start] = inputs;
  const std::int64_t D = g.D, H = g.H, heads_per_group = H / g.G;
  const double scale = options.scale, softcap = options.softcap;
  with_float("cached_attention", q.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(q.rows() * H, 1, [&](std::int64_t begin, std::int64_t end) {
      S sum[max_cached_head_size];
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t n = task / H, h = task % H, p = position + n, column = h / heads_per_group * D;
        const T* const query = q.row<T>(n) + h * D;
        S max = -std::numeric_limits<S>::infinity(), total = 0;
        std::fill(sum, sum + D, S(0));
        for (std::int64_t s = g.first_key(p); s <= p; ++s) {
          S score = dot<T, S>(query, k.row<T>(s) + column, D) * S(scale);
          if (softcap > 0) score = S(softcap) * std::tanh(score / S(softcap));
          const S new_max = std::max(max, score), old_factor = std::exp(max - new_max), factor = std::exp(score - new_max);
          total = total * old_factor + factor;
          add_scaled<T, S>(sum, v.row<T>(s) + column, old_factor, factor, D);
          max = new_max;
        }
        for (std::int64_t d = 0; d < D; ++d) out.row<T>(n)[h * D + d] = T(sum[d] / total);
      }
    });
  });
}

}  // namespace mst::cpu
