// Causal attention beside the rate of oneDNN's products on this machine. Arguments: T, heads H, head size D, bf16.
// GFLOP/s counts the pairs that a query sees: 2 products forward, 5 backward, of 2·D operations a pair.
#include <benchmark/benchmark.h>

#include <cmath>
#include <tuple>

#include "support.h"

namespace mst::bench {
namespace {

constexpr std::int64_t queries_per_key = 2;  // H / G, as in most models

// Elements of the backward's workspace for B = 1, the larger one; see ops/attention.h.
std::int64_t scratch_size(std::int64_t T, std::int64_t H, std::int64_t D) {
  return omp_get_max_threads() * (2 * 128 * 256 + 4 * 256 * D + 2 * 128 * D) + H * T + T * H * D;
}

struct Attention {
  std::int64_t T, H, D;
  Dtype dtype;
  Buffer q{dtype, T, H*D}, k{dtype, T, H / queries_per_key*D}, v{dtype, T, H / queries_per_key*D};
  Buffer out{dtype, T, H*D}, lse{Dtype::f32, H, T}, dout{dtype, T, H*D};
  Buffer dq{dtype, T, H*D}, dk{dtype, T, H / queries_per_key*D}, dv{dtype, T, H / queries_per_key*D};
  Buffer scratch{Dtype::f32, 1, scratch_size(T, H, D)};

  explicit Attention(const benchmark::State& state)
      : T(state.range(0)), H(state.range(1)), D(state.range(2)), dtype(dtype_of(state.range(3))) {
    q.random(0, 1), k.random(1, 1), v.random(2, 1), dout.random(3, 1);
  }
  Workspace workspace() {
    const Tensor memory = scratch;
    return {memory.data, static_cast<std::size_t>(memory.cols()) * sizeof(float)};
  }
  AttentionInputs inputs() {
    return {q, k, v};
  }
  AttentionOptions options() const {
    return {T, D, 1 / std::sqrt(double(D))};
  }
  void forward() {
    attention_forward(context(), inputs(), out, lse, workspace(), options());
  }
  void backward() {
    attention_backward(context(), dout, inputs(), out, lse, {dq, dk, dv}, workspace(), options());
  }
  void count(benchmark::State& state, int products) const {
    const double pairs = 0.5 * double(T) * double(T + 1) * double(H);
    state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * products * 2 * double(D) * pairs, benchmark::Counter::kIsIterationInvariantRate);
  }
};

void forward(benchmark::State& state) {
  Attention attention(state);
  for (auto _ : state) attention.forward();
  attention.count(state, 2);
}
void backward(benchmark::State& state) {
  Attention attention(state);
  attention.forward();
  for (auto _ : state) attention.backward();
  attention.count(state, 5);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"T", "H", "D", "bf16"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const std::int64_t bf16 : {0, 1})
    for (const auto& [T, H, D] : {std::tuple{8192, 4, 64}, {2048, 8, 128}}) benchmark->Args({T, H, D, bf16});
}

BENCHMARK(forward)->Name("attention_forward")->Apply(sizes);
BENCHMARK(backward)->Name("attention_backward")->Apply(sizes);

}  // namespace
}  // namespace mst::bench
