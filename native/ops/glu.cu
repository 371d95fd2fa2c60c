// Gated linear units; see glu.h.
#include "glu.h"

#include "../cuda/math.h"
#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

struct ActivationResult {
  float value, slope;  // act(x), act'(x)
};

// As exact as results in T need.
template <Activation activation, class T>
__device__ inline ActivationResult activate(float x) {
  if constexpr (activation == Activation::silu) {
    const float s = sigmoid<T>(x);
    return {x * s, s * (1.0f + x * (1.0f - s))};
  } else {
    // gelu(x) = x/2 (1 + tanh u), u = sqrt(2/π) (x + 0.044715 x³)
    constexpr float k = 0.7978845608028654f, a = 0.044715f;
    const float t = tanhf(k * (x + a * x * x * x));
    const float du = k * (1.0f + 3.0f * a * x * x);
    return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * du};
  }
}

template <Activation activation, int width, class T>
struct Forward {
  const T *gate, *up;
  T* y;
  std::int64_t gate_stride, up_stride, y_stride;
  __device__ void operator()(std::int64_t m, std::int64_t f) const {
    float g[width], u[width];
    load(gate + m * gate_stride + f, g);
    load(up + m * up_stride + f, u);
#pragma unroll
    for (int i = 0; i < width; ++i) g[i] = activate<activation, T>(g[i]).value * u[i];
    store(g, y + m * y_stride + f);
  }
};

// Reads each element before it writes it, so that outputs may be inputs.
template <Activation activation, int width, class T>
struct Backward {
  const T *dy, *gate, *up;
  T *dgate, *dup, *y;
  std::int64_t dy_stride, gate_stride, up_stride, dgate_stride, dup_stride, y_stride;
  __device__ void operator()(std::int64_t m, std::int64_t f) const {
    float d[width], g[width], u[width], h[width];
    load(dy + m * dy_stride + f, d);
    load(gate + m * gate_stride + f, g);
    load(up + m * up_stride + f, u);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const ActivationResult act = activate<activation, T>(g[i]);
      h[i] = act.value * u[i];
      g[i] = d[i] * u[i] * act.slope;
      u[i] = d[i] * act.value;
    }
    store(g, dgate + m * dgate_stride + f);
    store(u, dup + m * dup_stride + f);
    if (y) store(h, y + m * y_stride + f);
  }
};

template <Activation activation>
void forward(const Tensor& gate, const Tensor& up, const Tensor& y) {
  with_cuda_float("glu_forward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&gate, &up, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(
          gate.rows(), gate.cols(),
          Forward<activation, width, T>{gate.as<const T>(), up.as<const T>(), y.as<T>(), gate.row_stride, up.row_stride, y.row_stride});
    });
  });
}

template <Activation activation>
void backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup, const OptionalTensor& y) {
  with_cuda_float("glu_backward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool in_vectors = is_vectorizable({&dy, &gate, &up, &dgate, &dup}) && (!y || is_vectorizable({&*y}));
    with_width<vector_width<T>>(in_vectors, [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(gate.rows(), gate.cols(),
                             Backward<activation, width, T>{dy.as<const T>(), gate.as<const T>(), up.as<const T>(), dgate.as<T>(),
                                                            dup.as<T>(), y ? y->template as<T>() : nullptr, dy.row_stride, gate.row_stride,
                                                            up.row_stride, dgate.row_stride, dup.row_stride, y ? y->row_stride : 0});
    });
  });
}

}  // namespace

void glu_forward(const Tensor& gate, const Tensor& up, const Tensor& y, Activation activation) {
  (activation == Activation::silu ? forward<Activation::silu> : forward<Activation::gelu_tanh>)(gate, up, y);
}

void glu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup, const OptionalTensor& y,
                  Activation activation) {
  (activation == Activation::silu ? backward<Activation::silu> : backward<Activation::gelu_tanh>)(dy, gate, up, dgate, dup, y);
}

}  // namespace mst::cuda
