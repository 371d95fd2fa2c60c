// Root mean square normalisation; see rms_norm.h.
#include "rms_norm.h"

#include <cmath>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

// 1 / sqrt(mean(x²) + eps)
template <class S, class T>
MST_INLINE S inverse_norm(const T* x, std::int64_t C, S eps) {
  const S squares = lane_sum<S>(C, [&](std::int64_t c) { return static_cast<S>(x[c]) * static_cast<S>(x[c]); });
  return S(1) / std::sqrt(squares / static_cast<S>(C) + eps);
}

template <class T, class W, class S>
MST_CLONES void forward_row(const T* x, const W* weight, T* y, std::int64_t C, S eps, S weight_offset) {
  const S r = inverse_norm<S>(x, C, eps);
  MST_INDEPENDENT
  for (std::int64_t c = 0; c < C; ++c) y[c] = T(static_cast<S>(x[c]) * r * (static_cast<S>(weight[c]) + weight_offset));
}

// dweight (C,): the partial sum that this row belongs to; null: skipped.
template <class T, class W, class S>
MST_CLONES void backward_row(const T* dy, const T* x, const W* weight, T* dx, S* dweight, std::int64_t C, S eps, S weight_offset) {
  const S r = inverse_norm<S>(x, C, eps);
  const S dot = lane_sum<S>(
      C, [&](std::int64_t c) { return static_cast<S>(dy[c]) * (static_cast<S>(weight[c]) + weight_offset) * static_cast<S>(x[c]); });
  const S factor = r * r * dot / static_cast<S>(C);
  if (dweight) {
    MST_INDEPENDENT
    for (std::int64_t c = 0; c < C; ++c) dweight[c] += static_cast<S>(dy[c]) * static_cast<S>(x[c]) * r;
  }
  MST_INDEPENDENT
  for (std::int64_t c = 0; c < C; ++c) {
    const S g = static_cast<S>(dy[c]) * (static_cast<S>(weight[c]) + weight_offset);
    dx[c] = T(r * (g - factor * static_cast<S>(x[c])));
  }
}

// Calls function(x's type, weight's type).
template <class Function>
void with_types(const char* op, const Tensor& x, const Tensor& weight, const Function& function) {
  with_float(op, x.dtype, [&](auto x_tag) {
    if (weight.dtype == x.dtype) return function(x_tag, x_tag);
    function(x_tag, type_tag<float>{});
  });
}

}  // namespace

void rms_norm_forward(Context&, const Tensor& x, const Tensor& weight, const Tensor& y, double eps, double weight_offset) {
  check_rms_norm_forward(x, weight, y);
  with_types("rms_norm_forward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    using S = compute_t<T>;
    parallel_for(x.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n)
        forward_row<T, W, S>(x.row<T>(n), weight.as<W>(), y.row<T>(n), x.cols(), S(eps), S(weight_offset));
    });
  });
}

void rms_norm_backward(Context&, const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
                       const OptionalTensor& partials, double eps, double weight_offset) {
  check_rms_norm_backward(dy, x, weight, dx, dweight, partials);
  with_types("rms_norm_backward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    using S = compute_t<T>;
    const std::int64_t N = x.rows(), C = x.cols(), P = partials ? partials->rows() : 64;
    parallel_for(P, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        S* const sums = partials ? partials->row<S>(p) : nullptr;
        if (sums) std::fill(sums, sums + C, S(0));
        for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n)
          backward_row<T, W, S>(dy.row<T>(n), x.row<T>(n), weight.as<W>(), dx.row<T>(n), sums, C, S(eps), S(weight_offset));
      }
    });
    if (!dweight) return;
    with_gradient<S>("rms_norm_backward", dweight->dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      for (std::int64_t c = 0; c < C; ++c) {
        S sum = static_cast<S>(dweight->as<G>()[c]);
        for (std::int64_t p = 0; p < P; ++p) sum += partials->row<S>(p)[c];
        dweight->as<G>()[c] = G(sum);
      }
    });
  });
}

}  // namespace mst::cpu
