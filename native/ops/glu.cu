// Gated linear units; see glu.h.
#include "glu.h"

#include "../cuda/common/activation.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <Activation activation, int width, class T>
struct Forward {
  Rows<const T> gate, up;
  Rows<T> y;
  __device__ void operator()(std::int64_t m, std::int64_t f) const {
    float g[width], u[width];
    load(gate.at(m, f), g);
    load(up.at(m, f), u);
#pragma unroll
    for (int i = 0; i < width; ++i) g[i] = activate<activation, T>(g[i]).value * u[i];
    store(g, y.at(m, f));
  }
};

// Reads each element before it writes it, so that outputs may be inputs.
template <Activation activation, int width, class T>
struct Backward {
  Rows<const T> dy, gate, up;
  Rows<T> dgate, dup, y;
  __device__ void operator()(std::int64_t m, std::int64_t f) const {
    float d[width], g[width], u[width], h[width];
    load(dy.at(m, f), d);
    load(gate.at(m, f), g);
    load(up.at(m, f), u);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const ActivationResult act = activate<activation, T>(g[i]);
      h[i] = act.value * u[i];
      g[i] = d[i] * u[i] * act.slope;
      u[i] = d[i] * act.value;
    }
    store(g, dgate.at(m, f));
    store(u, dup.at(m, f));
    if (y.data) store(h, y.at(m, f));
  }
};

template <Activation activation>
void forward(Context& context, const Tensor& gate, const Tensor& up, const Tensor& y) {
  with_cuda_float("glu_forward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&gate, &up, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, gate.rows(), gate.cols(),
                             Forward<activation, width, T>{rows_of<const T>(gate), rows_of<const T>(up), rows_of<T>(y)});
    });
  });
}

template <Activation activation>
void backward(Context& context, const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
              const OptionalTensor& y) {
  with_cuda_float("glu_backward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool in_vectors = is_vectorizable({&dy, &gate, &up, &dgate, &dup}) && (!y || is_vectorizable({&*y}));
    with_width<vector_width<T>>(in_vectors, [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, gate.rows(), gate.cols(),
                             Backward<activation, width, T>{rows_of<const T>(dy), rows_of<const T>(gate), rows_of<const T>(up),
                                                            rows_of<T>(dgate), rows_of<T>(dup), y ? rows_of<T>(*y) : Rows<T>{}});
    });
  });
}

}  // namespace

void glu_forward(Context& context, const Tensor& gate, const Tensor& up, const Tensor& y, Activation activation) {
  check_glu_forward(gate, up, y);
  (activation == Activation::silu ? forward<Activation::silu> : forward<Activation::gelu_tanh>)(context, gate, up, y);
}

void glu_backward(Context& context, const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
                  const OptionalTensor& y, Activation activation) {
  check_glu_backward(dy, gate, up, dgate, dup, y);
  (activation == Activation::silu ? backward<Activation::silu> : backward<Activation::gelu_tanh>)(context, dy, gate, up, dgate, dup, y);
}

}  // namespace mst::cuda
