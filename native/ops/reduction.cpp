// Sums in a fixed order; see reduction.h.
#include "reduction.h"

#include <cmath>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

template <class T>
MST_CLONES double squares(const T* x, std::int64_t n) {
  return lane_sum<double>(n, [&](std::int64_t i) {
    const double value = static_cast<double>(static_cast<compute_t<T>>(x[i]));
    return value * value;
  });
}

}  // namespace

void sum_of_squares(Context&, const Tensor& x, const Tensor& sum, const Tensor& partials) {
  check_sum_of_squares(x, sum, partials);
  const std::int64_t size = x.size(), P = partials.size();
  double* const parts = partials.as<double>();
  with_float("sum_of_squares", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(P, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        const std::int64_t first = size * p / P, last = size * (p + 1) / P;
        parts[p] = squares<T>(x.as<T>() + first, last - first);
      }
    });
  });
  double total = 0;
  for (std::int64_t p = 0; p < P; ++p) total += parts[p];
  with_float("sum_of_squares", sum.dtype, [&](auto tag) { *sum.as<typename decltype(tag)::type>() = typename decltype(tag)::type(total); });
}

void clip_factor(Context&, const Tensor& sums, const Tensor& norm, const Tensor& factor, double max_norm) {
  check_clip_factor(sums, norm, factor);
  with_float("clip_factor", sums.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    double total = 0;
    for (std::int64_t i = 0; i < sums.size(); ++i) total += static_cast<double>(sums.as<S>()[i]);
    const double root = std::sqrt(total);
    *norm.as<S>() = S(root);
    const double ratio = max_norm > 0 ? max_norm / (root + 1e-6) : 1.0;
    *factor.as<S>() = S(!std::isfinite(root) ? std::nan("") : ratio < 1.0 ? ratio : 1.0);
  });
}

}  // namespace mst::cpu
