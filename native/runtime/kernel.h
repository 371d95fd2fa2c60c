// KERNEL(name, parameters...) declares an op for both devices: cpu::name(cpu::Context&, parameters...) and cuda::name(cuda::Context&,
// parameters...), and mst::name(Context&, parameters...), which chooses by the context's kind. This is the only dispatch; the binder, the
// chunk loops and the benchmark runner all call mst::name.
#pragma once

#include "context.h"
#include "tensor.h"

namespace mst {

template <auto on_cpu, auto on_cuda>
struct Kernel;

template <class... Parameters, void (*on_cpu)(cpu::Context&, Parameters...), void (*on_cuda)(cuda::Context&, Parameters...)>
struct Kernel<on_cpu, on_cuda> {
  void operator()(Context& context, Parameters... arguments) const {
    if (context.device().kind == Device::cpu)
      on_cpu(cpu::context_of(context), arguments...);
    else
      on_cuda(cuda::context_of(context), arguments...);
  }
};

}  // namespace mst

#define KERNEL(name, ...)                                         \
  namespace cpu {                                                 \
  void name(Context& context, __VA_ARGS__);                       \
  }                                                               \
  namespace cuda {                                                \
  void name(Context& context, __VA_ARGS__);                       \
  }                                                               \
  inline constexpr ::mst::Kernel<&cpu::name, &cuda::name> name {} \
  /* the caller writes the semicolon */
