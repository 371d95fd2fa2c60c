// Our product beside oneDNN's own rate: the same primitive made once and executed bare, in the layouts of a training step.
// Arguments: rows N of the activation, inputs I, outputs O, bf16.
#include <benchmark/benchmark.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "support.h"

namespace mst::bench {
namespace {

enum class Pass { forward, dgrad, wgrad };

// Operands of one pass of y (N,O) = x (N,I) · wᵀ, w (O,I).
struct Operands {
  Buffer a, b, c;
  bool transpose_a, transpose_b;
};

Operands operands(Pass pass, std::int64_t N, std::int64_t I, std::int64_t O, Dtype dtype) {
  switch (pass) {
    case Pass::forward:
      return {{dtype, N, I}, {dtype, O, I}, {dtype, N, O}, false, true};
    case Pass::dgrad:
      return {{dtype, N, O}, {dtype, O, I}, {dtype, N, I}, false, false};
    default:
      return {{dtype, N, O}, {dtype, N, I}, {Dtype::f32, O, I}, true, false};
  }
}

void count(benchmark::State& state) {
  const double operations = 2e-9 * double(state.range(0)) * double(state.range(1)) * double(state.range(2));
  state.counters["GFLOP/s"] = benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate);
}

template <Pass pass>
void ours(benchmark::State& state) {
  Operands o = operands(pass, state.range(0), state.range(1), state.range(2), dtype_of(state.range(3)));
  o.a.random(0, 1), o.b.random(1, 1);
  for (auto _ : state) matmul(context(), o.a, o.b, o.c, product_workspace(), o.transpose_a, o.transpose_b, 1, 0);
  count(state);
}

template <Pass pass>
void onednn(benchmark::State& state) {
  Operands o = operands(pass, state.range(0), state.range(1), state.range(2), dtype_of(state.range(3)));
  o.a.random(0, 1), o.b.random(1, 1);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto describe = [](const Tensor& tensor, bool transposed) {
    const auto type = tensor.dtype == Dtype::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    const std::int64_t rows = tensor.rows(), cols = tensor.cols();
    return transposed ? dnnl::memory::desc({cols, rows}, type, {1, cols}) : dnnl::memory::desc({rows, cols}, type, {cols, 1});
  };
  const auto a = describe(o.a, o.transpose_a), b = describe(o.b, o.transpose_b), c = describe(o.c, false);
  const dnnl::matmul product(dnnl::matmul::primitive_desc({a, b, c}, engine));
  const std::unordered_map<int, dnnl::memory> arguments = {{DNNL_ARG_SRC, {a, engine, static_cast<const Tensor&>(o.a).data}},
                                                           {DNNL_ARG_WEIGHTS, {b, engine, static_cast<const Tensor&>(o.b).data}},
                                                           {DNNL_ARG_DST, {c, engine, static_cast<const Tensor&>(o.c).data}}};
  for (auto _ : state) {
    product.execute(stream, arguments);
    stream.wait();
  }
  count(state);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"N", "I", "O", "bf16"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const std::int64_t bf16 : {0, 1})
    for (const std::int64_t N : {1024, 256}) {
      benchmark->Args({N, C, F, bf16});
      benchmark->Args({N, F, C, bf16});
      benchmark->Args({N, C, V, bf16});
    }
}

BENCHMARK(onednn<Pass::forward>)->Apply(sizes);
BENCHMARK(ours<Pass::forward>)->Apply(sizes);
BENCHMARK(onednn<Pass::dgrad>)->Apply(sizes);
BENCHMARK(ours<Pass::dgrad>)->Apply(sizes);
BENCHMARK(onednn<Pass::wgrad>)->Apply(sizes);
BENCHMARK(ours<Pass::wgrad>)->Apply(sizes);

}  // namespace
}  // namespace mst::bench
