// Soft-capping of scores; see softcap.h.
#include "softcap.h"

#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Forward {
  Rows<const T> x;
  Rows<T> y;
  float cap, inverse_cap;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    float values[width];
    load(x.at(n, c), values);
#pragma unroll
    for (float& value : values) value = cap * tanhf(value * inverse_cap);
    store(values, y.at(n, c));
  }
};

template <int width, class T>
struct Backward {
  Rows<const T> dy, y;
  Rows<T> dx;
  float inverse_cap;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    float d[width], values[width];
    load(dy.at(n, c), d);
    load(y.at(n, c), values);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float tanh = values[i] * inverse_cap;
      d[i] *= 1.0f - tanh * tanh;
    }
    store(d, dx.at(n, c));
  }
};

}  // namespace

void softcap_forward(Context& context, const Tensor& x, const Tensor& y, double cap) {
  check_softcap_forward(x, y);
  with_cuda_float("softcap_forward", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&x, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, x.rows(), x.cols(),
                             Forward<width, T>{rows_of<const T>(x), rows_of<T>(y), float(cap), float(1 / cap)});
    });
  });
}

void softcap_backward(Context& context, const Tensor& dy, const Tensor& y, const Tensor& dx, double cap) {
  check_softcap_backward(dy, y, dx);
  with_cuda_float("softcap_backward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&dy, &y, &dx}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, y.rows(), y.cols(),
                             Backward<width, T>{rows_of<const T>(dy), rows_of<const T>(y), rows_of<T>(dx), float(1 / cap)});
    });
  });
}

}  // namespace mst::cuda
