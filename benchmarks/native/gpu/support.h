// Device tensors for the native benchmarks of a GPU, and their clock: CUDA events, runs that take turns.
// Letters and sizes: a layer and the head of Llama-3-8B in bf16.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/common/launch.h"
#include "ops/all.h"

namespace mst::bench {

constexpr std::int64_t C = 4096, F = 14336, V = 128256;

cuda::Context& context();

// Owns device memory.
class Buffer {
 public:
  Buffer(Dtype dtype, std::int64_t rows, std::int64_t cols) {
    void* memory = nullptr;
    CUDA_CHECK(cudaMalloc(&memory, static_cast<std::size_t>(rows * cols) * size_of(dtype)));
    memory_.reset(memory);
    view_ = {memory, dtype, 2, {rows, cols}, cols};
  }
  Buffer& random(double deviation = 1) {
    static std::int64_t op = 0;
    random_normal(context(), view_, 0, deviation, 1, op++, 0);
    return *this;
  }
  // Overwrites an i32 buffer.
  Buffer& set(const std::vector<std::int32_t>& values) {
    CUDA_CHECK(
        cudaMemcpyAsync(view_.data, values.data(), values.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice, context().stream()));
    CUDA_CHECK(cudaStreamSynchronize(context().stream()));
    return *this;
  }
  operator const Tensor&() const {
    return view_;
  }
  operator OptionalTensor() const {
    return view_;
  }

 private:
  struct Free {
    void operator()(void* memory) const {
      cudaFree(memory);
    }
  };
  std::unique_ptr<void, Free> memory_;
  Tensor view_;
};

inline double bytes_of(const Tensor& tensor) {
  return double(tensor.size()) * double(size_of(tensor.dtype));
}

// The workspace that TypeScript passes to every product: 32 MiB.
Workspace product_workspace();

// n * 7919 mod V for n < N: no id comes twice.
std::vector<std::int32_t> distinct_ids(std::int64_t N);

// One way to do the work, and what runs before it untimed.
struct Run {
  std::function<void()> work;
  std::function<void()> prepare = nullptr;
  bool is_cold = false;  // L2 is overwritten first
};

// Milliseconds [run][repetition] of runs that take turns.
std::vector<std::vector<double>> time_in_turn(const std::vector<Run>& runs);

double median(std::vector<double> values);
// Median over the repetitions of a's time to b's.
double median_ratio(const std::vector<double>& a, const std::vector<double>& b);

// Prints {"group": …, "name": …, fields}. Fields that are not finite become null.
void report(const std::string& group, const std::string& name, const std::vector<std::pair<std::string, double>>& fields);

// The groups.
void kernels();
void products();
void mlp();
void head();
void attention();

}  // namespace mst::bench
