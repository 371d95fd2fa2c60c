// Rows of tokens by expert; see routed_rows.h.
#include "routed_rows.h"

#include <cstring>
#include <vector>

#include "../cpu/activation.h"
#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

template <class T, class S>
MST_CLONES void sum_row(const T* const* rows, const S* weights, std::int64_t k, T* y, std::int64_t C) {
  for (std::int64_t c = 0; c < C; ++c) {
    S sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum += weights[j] * static_cast<S>(rows[j][c]);
    y[c] = T(sum);
  }
}

// Returns Σ dy · act(gate) · up.
template <Activation activation, class T, class S>
MST_CLONES S backward_row(const T* dy, const T* gate, const T* up, T* dgate, T* dup, T* y, S weight, std::int64_t F) {
  const S dweight = lane_sum<S>(F, [&](std::int64_t f) {
    return static_cast<S>(dy[f]) * activate<activation, S>(static_cast<S>(gate[f])).value * static_cast<S>(up[f]);
  });
  MST_INDEPENDENT
  for (std::int64_t f = 0; f < F; ++f) {
    const S d = weight * static_cast<S>(dy[f]), u = static_cast<S>(up[f]);
    const ActivationResult<S> act = activate<activation, S>(static_cast<S>(gate[f]));
    dgate[f] = T(d * u * act.slope);
    dup[f] = T(d * act.value);
    y[f] = T(weight * act.value * u);
  }
  return dweight;
}

template <Activation activation>
void backward(const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights) {
  with_float("routed_glu_backward", rows.gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(rows.gate.rows(), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int32_t pair = order.as<std::int32_t>()[r];
        dweights.as<S>()[pair] =
            backward_row<activation, T, S>(rows.dy.row<T>(r), rows.gate.row<T>(r), rows.up.row<T>(r), rows.dgate.row<T>(r),
                                           rows.dup.row<T>(r), rows.y.row<T>(r), weights.as<S>()[pair], rows.gate.cols());
      }
    });
  });
}

}  // namespace

void routed_gather(Context&, const Tensor& x, const Tensor& order, const Tensor& rows) {
  check_routed_gather(x, order, rows);
  const std::int64_t k = rows.rows() / x.rows();
  const auto row_bytes = static_cast<std::size_t>(x.cols()) * size_of(x.dtype);
  parallel_for(rows.rows(), 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t m = order.as<std::int32_t>()[r] / k;
      std::memcpy(rows.slice_rows(r, r + 1).data, x.slice_rows(m, m + 1).data, row_bytes);
    }
  });
}

void routed_sum(Context&, const Tensor& rows, const Tensor& places, const OptionalTensor& weights, const Tensor& y) {
  check_routed_sum(rows, places, weights, y);
  const std::int64_t M = y.rows(), k = rows.rows() / M;
  with_float("routed_sum", rows.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    parallel_for(M, 8, [&](std::int64_t begin, std::int64_t end) {
      std::vector<const T*> of_token(static_cast<std::size_t>(k));
      const std::vector<S> ones(static_cast<std::size_t>(k), S(1));
      for (std::int64_t m = begin; m < end; ++m) {
        for (std::int64_t j = 0; j < k; ++j) of_token[static_cast<std::size_t>(j)] = rows.row<T>(places.as<std::int32_t>()[m * k + j]);
        sum_row(of_token.data(), weights ? weights->as<S>() + m * k : ones.data(), k, y.row<T>(m), y.cols());
      }
    });
  });
}

void routed_glu_backward(Context&, const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights,
                         Activation activation) {
  check_routed_glu_backward(rows, order, weights, dweights);
  (activation == Activation::silu ? backward<Activation::silu> : backward<Activation::gelu_tanh>)(rows, order, weights, dweights);
}

}  // namespace mst::cpu
