// The MLP and the head, forward and backward, over chunks of M rows, in turn with their products alone: on the same operands, of the
// same sizes, into the same outputs. shareOfBound is the products' time to the whole's.
#include "support.h"

namespace mst::bench {
namespace {

void measure(const std::string& group, const std::string& name, double operations, const std::function<void()>& whole,
             const std::function<void()>& products) {
  const auto times = time_in_turn({{whole}, {products}});
  const double milliseconds = median(times[0]);
  report(group, name,
         {{"milliseconds", milliseconds},
          {"boundMilliseconds", median(times[1])},
          {"shareOfBound", median_ratio(times[1], times[0])},
          {"operations", operations},
          {"teraflops", operations / milliseconds * 1e-9}});
}

void multiply(const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double beta = 0) {
  matmul(context(), a, b, c, product_workspace(), transpose_a, transpose_b, 1, beta);
}

void mlp(std::int64_t N, std::int64_t M, bool saves_gate_up) {
  constexpr Dtype dtype = Dtype::bf16;
  Buffer x(dtype, N, C), gate_and_up(dtype, 2 * F, C), down(dtype, C, F), y(dtype, N, C), dy(dtype, N, C), dx(dtype, N, C);
  Buffer dgate_and_dup(Dtype::f32, 2 * F, C), ddown(Dtype::f32, C, F), gate_up(dtype, saves_gate_up ? N : M, 2 * F), h(dtype, M, F);
  x.random(), gate_and_up.random(0.02), down.random(0.02), dy.random();
  const Tensor both = gate_and_up, dboth = dgate_and_dup, dx_rows = dx;
  const MlpWeights weights{both.slice_rows(0, F), both.slice_rows(F, 2 * F), down};
  const MlpGradients gradients{dx_rows, WeightGradient{dboth.slice_rows(0, F), true}, WeightGradient{dboth.slice_rows(F, 2 * F), true},
                               WeightGradient{ddown, true}};
  const GateUp intermediate{gate_up, saves_gate_up};
  const auto whole = [&] {
    chunked_mlp_forward(context(), x, weights, y, intermediate, h, product_workspace(), Activation::silu, {});
    chunked_mlp_backward(context(), dy, x, weights, gradients, intermediate, h, product_workspace(), Activation::silu, {});
  };
  const Tensor x_rows = x, y_rows = y, dy_rows = dy, gate_up_rows = gate_up;
  const auto products = [&] {
    for (std::int64_t begin = 0; begin < N; begin += M) {
      multiply(x_rows.slice_rows(begin, begin + M), both, gate_up_rows.slice_rows(0, M), false, true);
      multiply(h, down, y_rows.slice_rows(begin, begin + M), false, true);
    }
    for (std::int64_t begin = 0; begin < N; begin += M) {
      const Tensor x_chunk = x_rows.slice_rows(begin, begin + M), dy_chunk = dy_rows.slice_rows(begin, begin + M);
      const Tensor chunk = gate_up_rows.slice_rows(0, M);
      const double beta = begin == 0 ? 0 : 1;
      if (!saves_gate_up) multiply(x_chunk, both, chunk, false, true);
      multiply(dy_chunk, down, h, false, false);
      multiply(dy_chunk, h, ddown, true, false, beta);
      multiply(chunk, x_chunk, dboth, true, false, beta);
      multiply(chunk, both, dx_rows.slice_rows(begin, begin + M), false, false);
    }
  };
  const double units = saves_gate_up ? 9 : 11;
  measure("mlp", message_of("N ", N, ", chunks of ", M, saves_gate_up ? ", gate and up saved" : ""),
          units * 2 * double(N) * double(C) * double(F), whole, products);
}

void head(std::int64_t N, std::int64_t M) {
  constexpr Dtype dtype = Dtype::bf16;
  Buffer hidden(dtype, N, C), weight(dtype, V, C), dhidden(dtype, N, C), dweight(Dtype::f32, V, C), logits(dtype, M, V);
  Buffer targets(Dtype::i32, 1, N), losses(Dtype::f32, 1, N);
  hidden.random(), weight.random(0.02), targets.set(distinct_ids(N));
  const Tensor hidden_rows = hidden, dhidden_rows = dhidden, dweight_rows = dweight;
  const HeadGradients gradients{1.0 / double(N), dhidden_rows, dweight_rows};
  const auto whole = [&] {
    chunked_cross_entropy(context(), hidden, {weight}, {targets}, {losses}, gradients, logits, product_workspace(), {});
  };
  const auto products = [&] {
    for (std::int64_t begin = 0; begin < N; begin += M) {
      const Tensor hidden_chunk = hidden_rows.slice_rows(begin, begin + M);
      multiply(hidden_chunk, weight, logits, false, true);
      multiply(logits, weight, dhidden_rows.slice_rows(begin, begin + M), false, false);
      multiply(logits, hidden_chunk, dweight, true, false, begin == 0 ? 0 : 1);
    }
  };
  measure("head", message_of("N ", N, ", chunks of ", M), 6 * double(N) * double(C) * double(V), whole, products);
}

}  // namespace

void mlp() {
  mlp(16384, 8192, false);
  mlp(16384, 4096, false);
  mlp(1024, 1024, true);
}

void head() {
  for (const std::int64_t N : {8192, 16384})
    for (const std::int64_t M : {8192, 4096}) head(N, M);
  head(1024, 1024);
}

}  // namespace mst::bench
