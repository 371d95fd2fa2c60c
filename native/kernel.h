// KERNEL(name, parameters...) declares an op for both devices: mst::cpu::name, mst::cuda::name, and mst::name, which chooses by the
// device of its first tensor. This is the only dispatch; the binder, the chunk loops and the benchmark runner all call mst::name.
// The first parameter of a kernel is always a tensor that is present.
#pragma once

#include "tensor.h"

namespace mst {

template <auto on_cpu, auto on_cuda>
struct Kernel;

template <class... Parameters, void (*on_cpu)(const Tensor&, Parameters...), void (*on_cuda)(const Tensor&, Parameters...)>
struct Kernel<on_cpu, on_cuda> {
  void operator()(const Tensor& first, Parameters... rest) const {
    (first.device.kind == Device::cpu ? on_cpu : on_cuda)(first, rest...);
  }
};

}  // namespace mst

#define KERNEL(name, ...)                                         \
  namespace cpu {                                                 \
  void name(__VA_ARGS__);                                         \
  }                                                               \
  namespace cuda {                                                \
  void name(__VA_ARGS__);                                         \
  }                                                               \
  inline constexpr ::mst::Kernel<&cpu::name, &cuda::name> name {} \
  /* the caller writes the semicolon */
