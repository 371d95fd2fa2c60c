// Adds a bias to every row; see bias.h.
#include "bias.h"

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

template <class T>
MST_CLONES void forward_row(T* y, const T* bias, std::int64_t C) {
  using S = compute_t<T>;
  MST_INDEPENDENT
  for (std::int64_t c = 0; c < C; ++c) y[c] = T(static_cast<S>(y[c]) + static_cast<S>(bias[c]));
}

template <class T, class S>
MST_CLONES void add_row(const T* dy, S* sums, std::int64_t C) {
  MST_INDEPENDENT
  for (std::int64_t c = 0; c < C; ++c) sums[c] += static_cast<S>(dy[c]);
}

}  // namespace

void bias_forward(Context&, const Tensor& y, const Tensor& bias) {
  check_bias_forward(y, bias);
  with_float("bias_forward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(y.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) forward_row<T>(y.row<T>(n), bias.as<T>(), y.cols());
    });
  });
}

void bias_backward(Context&, const Tensor& dy, const Tensor& dbias, const Tensor& partials) {
  check_bias_backward(dy, dbias, partials);
  with_float("bias_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    const std::int64_t N = dy.rows(), C = dy.cols(), P = partials.rows();
    parallel_for(P, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        S* const sums = partials.row<S>(p);
        std::fill(sums, sums + C, S(0));
        for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) add_row<T, S>(dy.row<T>(n), sums, C);
      }
    });
    with_gradient<S>("bias_backward", dbias.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      for (std::int64_t c = 0; c < C; ++c) {
        S sum = static_cast<S>(dbias.as<G>()[c]);
        for (std::int64_t p = 0; p < P; ++p) sum += partials.row<S>(p)[c];
        dbias.as<G>()[c] = G(sum);
      }
    });
  });
}

}  // namespace mst::cpu
