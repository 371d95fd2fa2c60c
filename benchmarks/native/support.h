// Host tensors for the native benchmarks, filled with random numbers.
#pragma once

#include <omp.h>

#include <memory>

#include "ops/all.h"
#include "runtime/device.h"

namespace mst::bench {

// C 1024, F 2816, V 32000: a model of about 400 million parameters.
constexpr std::int64_t C = 1024, F = 2816, V = 32000;

inline Context& context() {
  static const std::unique_ptr<Context> cpu = open_cpu(omp_get_max_threads());
  return *cpu;
}

class Buffer {
 public:
  Buffer(Dtype dtype, std::int64_t rows, std::int64_t cols)
      : memory_(static_cast<char*>(std::aligned_alloc(512, (static_cast<std::size_t>(rows * cols) * size_of(dtype) + 511) / 512 * 512)),
                &std::free) {
    view_.data = memory_.get();
    view_.dtype = dtype;
    view_.rank = 2;
    view_.shape = {rows, cols};
    view_.row_stride = cols;
  }
  Buffer& random(std::int64_t op, double deviation) {
    random_normal(context(), view_, 0, deviation, 1, op, 0);
    return *this;
  }
  operator const Tensor&() const {
    return view_;
  }
  operator OptionalTensor() const {
    return view_;
  }

 private:
  std::unique_ptr<char, decltype(&std::free)> memory_;
  Tensor view_;
};

// The workspace that TypeScript passes to every product: 2 MiB a thread.
inline Workspace product_workspace() {
  static const std::size_t bytes = static_cast<std::size_t>(omp_get_max_threads()) * (2 << 20);
  static void* const memory = std::aligned_alloc(512, bytes);
  return {memory, bytes};
}

inline Dtype dtype_of(std::int64_t argument) {
  return argument ? Dtype::bf16 : Dtype::f32;
}

}  // namespace mst::bench
