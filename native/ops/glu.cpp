// Gated linear units; see glu.h.
#include "glu.h"

#include "../cpu/activation.h"
#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

template <Activation activation, class T, class S>
MST_CLONES void forward_row(const T* gate, const T* up, T* y, std::int64_t F) {
  MST_INDEPENDENT
  for (std::int64_t f = 0; f < F; ++f) y[f] = T(activate<activation, S>(static_cast<S>(gate[f])).value * static_cast<S>(up[f]));
}

// Each element is read before it is written, so that outputs may be inputs.
template <Activation activation, bool with_y, class T, class S>
MST_CLONES void backward_row(const T* dy, const T* gate, const T* up, T* dgate, T* dup, T* y, std::int64_t F) {
  MST_INDEPENDENT
  for (std::int64_t f = 0; f < F; ++f) {
    const S d = static_cast<S>(dy[f]), u = static_cast<S>(up[f]);
    const ActivationResult<S> act = activate<activation, S>(static_cast<S>(gate[f]));
    dgate[f] = T(d * u * act.slope);
    dup[f] = T(d * act.value);
    if constexpr (with_y) y[f] = T(act.value * u);
  }
}

template <Activation activation>
void forward(const Tensor& gate, const Tensor& up, const Tensor& y) {
  with_float("glu_forward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(gate.rows(), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t m = begin; m < end; ++m)
        forward_row<activation, T, compute_t<T>>(gate.row<T>(m), up.row<T>(m), y.row<T>(m), gate.cols());
    });
  });
}

template <Activation activation, bool with_y>
void backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup, const OptionalTensor& y) {
  with_float("glu_backward", gate.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(gate.rows(), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t m = begin; m < end; ++m)
        backward_row<activation, with_y, T, compute_t<T>>(dy.row<T>(m), gate.row<T>(m), up.row<T>(m), dgate.row<T>(m), dup.row<T>(m),
                                                          with_y ? y->template row<T>(m) : nullptr, gate.cols());
    });
  });
}

template <Activation activation>
void backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup, const OptionalTensor& y) {
  (y ? backward<activation, true> : backward<activation, false>)(dy, gate, up, dgate, dup, y);
}

}  // namespace

void glu_forward(Context&, const Tensor& gate, const Tensor& up, const Tensor& y, Activation activation) {
  check_glu_forward(gate, up, y);
  (activation == Activation::silu ? forward<Activation::silu> : forward<Activation::gelu_tanh>)(gate, up, y);
}

void glu_backward(Context&, const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
                  const OptionalTensor& y, Activation activation) {
  check_glu_backward(dy, gate, up, dgate, dup, y);
  if (activation == Activation::silu)
    backward<Activation::silu>(dy, gate, up, dgate, dup, y);
  else
    backward<Activation::gelu_tanh>(dy, gate, up, dgate, dup, y);
}

}  // namespace mst::cpu
