// Rows of tokens by expert; see routed_rows.h.
#include "routed_rows.h"

#include "../cuda/common/activation.h"
#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Gather {
  Rows<const T> x;
  const std::int32_t* order;
  Rows<T> rows;
  int k;
  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    store_vector(load_vector<width>(x.at(order[r] / k, c)), rows.at(r, c));
  }
};

template <int width, class T>
struct WeightedSum {
  Rows<const T> rows;
  const std::int32_t* places;
  const float* weights;  // null: 1 each
  Rows<T> y;
  int k;
  __device__ void operator()(std::int64_t m, std::int64_t c) const {
    float sums[width] = {}, row[width];
    for (std::int64_t pair = m * k; pair < (m + 1) * k; ++pair) {
      load(rows.at(places[pair], c), row);
      const float weight = weights ? weights[pair] : 1.0f;
#pragma unroll
      for (int i = 0; i < width; ++i) sums[i] += weight * row[i];
    }
    store(sums, y.at(m, c));
  }
};

constexpr int glu_threads = 128;

template <class T>
struct Glu {
  Rows<const T> dy, gate, up;
  Rows<T> dgate, dup, y;
};

// A block for each row.
template <Activation activation, int width, class T>
__global__ void __launch_bounds__(glu_threads) routed_glu_backward_kernel(Glu<T> rows, const std::int32_t* order, const float* weights,
                                                                          float* dweights, std::int64_t R, std::int64_t F) {
  for (std::int64_t r = blockIdx.x; r < R; r += gridDim.x) {
    const std::int32_t pair = order[r];
    const float weight = weights[pair];
    float dweight = 0;
    for (std::int64_t f = std::int64_t(threadIdx.x) * width; f < F; f += glu_threads * width) {
      float d[width], g[width], u[width], h[width];
      load(rows.dy.at(r, f), d);
      load(rows.gate.at(r, f), g);
      load(rows.up.at(r, f), u);
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const ActivationResult act = activate<activation, T>(g[i]);
        dweight += d[i] * act.value * u[i];
        const float weighted = weight * d[i];
        h[i] = weight * act.value * u[i];
        g[i] = weighted * u[i] * act.slope;
        u[i] = weighted * act.value;
      }
      store(g, rows.dgate.at(r, f));
      store(u, rows.dup.at(r, f));
      store(h, rows.y.at(r, f));
    }
    dweight = block_sum(dweight);
    if (threadIdx.x == 0) dweights[pair] = dweight;
  }
}

template <Activation activation>
void backward(Context& context, const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights) {
  const auto& [dy, gate, up, dgate, dup, y] = rows;
  const std::int64_t R = gate.rows(), F = gate.cols();
  with_cuda_float("routed_glu_backward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Glu<T> of{rows_of<const T>(dy), rows_of<const T>(gate), rows_of<const T>(up), rows_of<T>(dgate), rows_of<T>(dup), rows_of<T>(y)};
    with_width<vector_width<T>>(is_vectorizable({&dy, &gate, &up, &dgate, &dup, &y}), [&]<int width>(std::integral_constant<int, width>) {
      launch(context, routed_glu_backward_kernel<activation, width, T>, grid_for(R, 1), glu_threads, 0, of, order.as<const std::int32_t>(),
             weights.as<const float>(), dweights.as<float>(), R, F);
    });
  });
}

}  // namespace

void routed_gather(Context& context, const Tensor& x, const Tensor& order, const Tensor& rows) {
  check_routed_gather(x, order, rows);
  const int k = static_cast<int>(rows.rows() / x.rows());
  with_cuda_float("routed_gather", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&x, &rows}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, rows.rows(), rows.cols(),
                             Gather<width, T>{rows_of<const T>(x), order.as<const std::int32_t>(), rows_of<T>(rows), k});
    });
  });
}

void routed_sum(Context& context, const Tensor& rows, const Tensor& places, const OptionalTensor& weights, const Tensor& y) {
  check_routed_sum(rows, places, weights, y);
  const int k = static_cast<int>(rows.rows() / y.rows());
  const float* const factors = weights ? weights->as<const float>() : nullptr;
  with_cuda_float("routed_sum", rows.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&rows, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, y.rows(), y.cols(),
                             WeightedSum<width, T>{rows_of<const T>(rows), places.as<const std::int32_t>(), factors, rows_of<T>(y), k});
    });
  });
}

void routed_glu_backward(Context& context, const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights,
                         Activation activation) {
  check_routed_glu_backward(rows, order, weights, dweights);
  (activation == Activation::silu ? backward<Activation::silu> : backward<Activation::gelu_tanh>)(context, rows, order, weights, dweights);
}

}  // namespace mst::cuda
