// The MLP and the head, forward and backward, chunked against whole, without Node. Arguments: N, rows of a chunk, bf16.
#include <benchmark/benchmark.h>

#include "support.h"

namespace mst::bench {
namespace {

void mlp(benchmark::State& state, bool saves_gate_up) {
  const std::int64_t N = state.range(0), M = std::min(N, state.range(1));
  const Dtype dtype = dtype_of(state.range(2));
  Buffer x(dtype, N, C), gate_and_up(dtype, 2 * F, C), down(dtype, C, F), y(dtype, N, C), dy(dtype, N, C), dx(dtype, N, C);
  Buffer dgate(Dtype::f32, F, C), dup(Dtype::f32, F, C), ddown(Dtype::f32, C, F);
  Buffer gate_up(dtype, saves_gate_up ? N : M, 2 * F), h(dtype, M, F);
  x.random(0, 1), gate_and_up.random(1, 0.02), down.random(2, 0.02), dy.random(3, 1);
  const Tensor both = gate_and_up, dx_rows = dx;
  const MlpWeights weights{both.slice_rows(0, F), both.slice_rows(F, 2 * F), down};
  const MlpGradients gradients{dx_rows, WeightGradient{dgate, true}, WeightGradient{dup, true}, WeightGradient{ddown, true}};
  const GateUp intermediate{gate_up, saves_gate_up};
  for (auto _ : state) {
    chunked_mlp_forward(context(), x, weights, y, intermediate, h, product_workspace(), Activation::silu, {});
    chunked_mlp_backward(context(), dy, x, weights, gradients, intermediate, h, product_workspace(), Activation::silu, {});
  }
  const double units = saves_gate_up ? 9 : 11;
  state.counters["GFLOP/s"] =
      benchmark::Counter(units * 2e-9 * double(N) * double(C) * double(F), benchmark::Counter::kIsIterationInvariantRate);
}

void mlp_saving_gate_up(benchmark::State& state) {
  mlp(state, true);
}
void mlp_saving_input(benchmark::State& state) {
  mlp(state, false);
}

void head(benchmark::State& state) {
  const std::int64_t N = state.range(0), M = std::min(N, state.range(1));
  const Dtype dtype = dtype_of(state.range(2));
  Buffer hidden(dtype, N, C), weight(dtype, V, C), dhidden(dtype, N, C), dweight(Dtype::f32, V, C), logits(dtype, M, V);
  Buffer targets(Dtype::i32, 1, N), losses(Dtype::f32, 1, N);
  hidden.random(0, 1), weight.random(1, 0.02);
  const Tensor ids = targets, dhidden_rows = dhidden, dweight_rows = dweight;
  const HeadGradients gradients{1.0 / double(N), dhidden_rows, dweight_rows};
  for (std::int64_t n = 0; n < N; ++n) ids.as<std::int32_t>()[n] = static_cast<std::int32_t>(n * 7919 % V);
  for (auto _ : state) chunked_cross_entropy(context(), hidden, {weight}, {targets}, {losses}, gradients, logits, product_workspace(), {});
  state.counters["GFLOP/s"] = benchmark::Counter(6e-9 * double(N) * double(C) * double(V), benchmark::Counter::kIsIterationInvariantRate);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"N", "M", "bf16"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const std::int64_t bf16 : {0, 1})
    for (const auto& [N, M] : {std::pair{4096, 4096}, {4096, 1024}, {256, 256}}) benchmark->Args({N, M, bf16});
}

BENCHMARK(mlp_saving_gate_up)->Apply(sizes);
BENCHMARK(mlp_saving_input)->Apply(sizes);
BENCHMARK(head)->Apply(sizes);

}  // namespace
}  // namespace mst::bench
