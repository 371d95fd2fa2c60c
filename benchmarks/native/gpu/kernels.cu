// Ops that are bound by memory, in turn with a copy that moves as many bytes. Bytes are counted, not measured: each input read once, each
// output written once.
#include <cmath>
#include <cstdlib>
#include <set>

#include "support.h"

namespace mst::bench {
namespace {

constexpr double adamw_bytes = 2 * (2 + 4 + 4) + 4;             // parameter, m and v read and written, the gradient read
constexpr double adamw_master_bytes = 2 * (4 + 4 + 4) + 4 + 2;  // master, m and v read and written, the parameter only written

void copy(const Tensor& from, const Tensor& to, double bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, context().stream()));
}
void copy(const Tensor& from, const Tensor& to) {
  copy(from, to, bytes_of(from));
}

// With a cold L2, in turn with the copy; then repeatedly with a warm L2.
void measure(const std::string& name, double bytes, const std::function<void()>& work, const std::function<void()>& prepare = nullptr) {
  constexpr std::int64_t most = 1 << 30;
  static const Buffer from = std::move(Buffer(Dtype::bf16, 1, most / 2).random()), to(Dtype::bf16, 1, most / 2);
  MST_CHECK(bytes <= 2.0 * most, "kernels: ", name, " moves ", bytes, " bytes, the copy beside it at most ", 2 * most);
  const auto times = time_in_turn({{work, prepare, true}, {[&] { copy(from, to, bytes / 2); }, nullptr, true}, {work, prepare, false}});
  const double cold = median(times[0]), hot = median(times[2]);
  report("kernels", name,
         {{"milliseconds", hot},
          {"coldMilliseconds", cold},
          {"copyMilliseconds", median(times[1])},
          {"bytes", bytes},
          {"gigabytesPerSecond", bytes / cold * 1e-6},
          {"shareOfCopy", median_ratio(times[1], times[0])},
          {"hotShareOfCopy", median_ratio(times[1], times[2])}});
}

// The backward in place in one gate|up buffer, as chunked_mlp runs it.
void glu(std::int64_t N) {
  Buffer gate_up(Dtype::bf16, N, 2 * F), dy(Dtype::bf16, N, F), gate_up_before(Dtype::bf16, N, 2 * F), dy_before(Dtype::bf16, N, F);
  gate_up_before.random(), dy_before.random();
  const auto prepare = [&] { copy(gate_up_before, gate_up), copy(dy_before, dy); };
  const Tensor both = gate_up, gate = both.slice_cols(0, F), up = both.slice_cols(F, 2 * F);
  const std::string sizes = message_of(", N ", N);
  prepare();
  measure("glu_forward" + sizes, 3 * bytes_of(dy), [&] { glu_forward(context(), gate, up, dy, Activation::silu); });
  measure(
      "glu_backward" + sizes, 6 * bytes_of(dy), [&] { glu_backward(context(), dy, gate, up, gate, up, dy, Activation::silu); }, prepare);
}

void cross_entropies(std::int64_t N) {
  Buffer logits(Dtype::bf16, N, V), before(Dtype::bf16, N, V), targets(Dtype::i32, 1, N), outputs(Dtype::f32, 5, N);
  before.random(), targets.set(distinct_ids(N));
  const Tensor rows = outputs;
  const auto run = [&](const std::string& name, const LossOptions& options, bool has_outputs) {
    const auto output = [&](std::int64_t i) { return has_outputs ? OptionalTensor(rows.slice_rows(i, i + 1)) : std::nullopt; };
    measure(
        name + message_of(", N ", N), 2 * bytes_of(logits),
        [&] {
          const TokenOutputs to{rows.slice_rows(0, 1), output(1), output(2), output(3), output(4)};
          cross_entropy(context(), logits, {targets}, to, options, 0, true);
        },
        [&] { copy(before, logits); });
  };
  run("cross_entropy", {}, false);
  run("cross_entropy, smoothing, z-loss, soft-cap", {-100, 0.1, 1e-4, 30}, false);
  run("cross_entropy, all outputs of tokens", {}, true);
}

constexpr std::int64_t num_partials = 2 * 132;  // as TypeScript chooses

void norm_and_rope(std::int64_t N) {
  constexpr std::int64_t D = 128;
  Buffer x(Dtype::bf16, N, C), y(Dtype::bf16, N, C), dy(Dtype::bf16, N, C), weight(Dtype::bf16, 1, C), dweight(Dtype::f32, 1, C);
  Buffer partials(Dtype::f32, num_partials, C), frequencies(Dtype::f64, 1, D / 2);
  x.random(), dy.random(), weight.random(), dweight.random();
  std::vector<double> values(D / 2);
  for (std::size_t d = 0; d < values.size(); ++d) values[d] = std::pow(500000.0, -2.0 * double(d) / double(D));
  CUDA_CHECK(cudaMemcpy(static_cast<const Tensor&>(frequencies).data, values.data(), values.size() * sizeof(double), cudaMemcpyDefault));
  const std::string sizes = message_of(", N ", N);
  measure("rms_norm_forward" + sizes, 2 * bytes_of(x), [&] { rms_norm_forward(context(), x, weight, y, 1e-5, 0); });
  measure("rms_norm_backward" + sizes, 3 * bytes_of(x),
          [&] { rms_norm_backward(context(), dy, x, weight, y, dweight, partials, 1e-5, 0); });
  const auto of_heads = [&](const Tensor& rows) {
    Tensor heads = rows;
    heads.shape = {rows.size() / D, D}, heads.row_stride = D;
    return heads;
  };
  const Tensor x_heads = of_heads(x), y_heads = of_heads(y), dy_heads = of_heads(dy),
               head_weight = static_cast<const Tensor&>(weight).slice_cols(0, D);
  const Tensor head_dweight = static_cast<const Tensor&>(dweight).slice_cols(0, D);
  const Buffer head_partials(Dtype::f32, num_partials, D);
  measure("rms_norm_forward of heads" + sizes, 2 * bytes_of(x),
          [&] { rms_norm_forward(context(), x_heads, head_weight, y_heads, 1e-5, 0); });
  measure("rms_norm_backward of heads" + sizes, 3 * bytes_of(x),
          [&] { rms_norm_backward(context(), dy_heads, x_heads, head_weight, y_heads, head_dweight, head_partials, 1e-5, 0); });
  measure("rope" + sizes, 2 * bytes_of(x), [&] { rope(context(), x, frequencies, std::nullopt, y, {N, D}); });
}

void elementwise(std::int64_t N) {
  Buffer x(Dtype::bf16, N, C), y(Dtype::bf16, N, C), dy(Dtype::bf16, N, C), bias(Dtype::bf16, 1, C), dbias(Dtype::f32, 1, C);
  const Buffer partials(Dtype::f32, num_partials, C);
  x.random(), y.random(), dy.random(), bias.random(), dbias.random();
  const std::string sizes = message_of(", N ", N);
  measure("add" + sizes, 3 * bytes_of(x), [&] { add(context(), x, dy, y); });
  measure("bias_forward" + sizes, 2 * bytes_of(y), [&] { bias_forward(context(), y, bias); });
  measure("bias_backward" + sizes, bytes_of(dy), [&] { bias_backward(context(), dy, dbias, partials); });
  measure("dropout" + sizes, 2 * bytes_of(x), [&] { dropout(context(), x, y, {0.1, 1, 3}, 2, 0); });
  measure("softcap_forward" + sizes, 2 * bytes_of(x), [&] { softcap_forward(context(), x, y, 30); });
  measure("softcap_backward" + sizes, 3 * bytes_of(x), [&] { softcap_backward(context(), dy, x, y, 30); });
}

// Ids that all differ, and ids distributed like words in a text: the r-th most frequent occurs 1/r as often as the first.
void embeddings(std::int64_t N) {
  Buffer weight(Dtype::bf16, V, C), y(Dtype::bf16, N, C), ids(Dtype::i32, 1, N), dweight(Dtype::f32, V, C), scratch(Dtype::f64, 1, 2 * N);
  const Workspace workspace{static_cast<const Tensor&>(scratch).data, static_cast<std::size_t>(N) * 16};
  weight.random(0.02), dweight.random(), y.random();
  std::vector<std::int32_t> as_in_text(static_cast<std::size_t>(N));
  for (std::int32_t& id : as_in_text) id = static_cast<std::int32_t>(std::pow(double(V), std::rand() / (RAND_MAX + 1.0)));
  for (const auto& [kind, list] : {std::pair{"distinct ids", distinct_ids(N)}, {"ids of a text", as_in_text}}) {
    ids.set(list);
    const double num_ids = double(std::set(list.begin(), list.end()).size());
    const std::string sizes = message_of(", N ", N, ", ", kind);
    measure("embedding_forward" + sizes, bytes_of(y) + num_ids * C * 2, [&] { embedding_forward(context(), weight, ids, y); });
    measure("embedding_backward" + sizes, bytes_of(y) + num_ids * C * 2 * 4,
            [&] { embedding_backward(context(), y, ids, dweight, workspace); });
  }
}

void optimizer() {
  Buffer parameter(Dtype::bf16, F, C), master(Dtype::f32, F, C), gradient(Dtype::f32, F, C), m(Dtype::f32, F, C), v(Dtype::f32, F, C);
  Buffer num_steps(Dtype::i32, 1, 1), factor(Dtype::f32, 1, 1), sum(Dtype::f32, 1, 1), partials(Dtype::f64, 1, 2 * 132);
  master.random(0.02), gradient.random(1e-3);
  cast(context(), master, parameter), fill(context(), m, 0), fill(context(), v, 0), fill(context(), num_steps, 1),
      fill(context(), factor, 1);
  const double size = double(F) * C;
  const auto run = [&](const OptionalTensor& master) {
    adamw(context(), parameter, master, gradient, {m, v, {}, {}}, factor, num_steps, {1e-5, 0.9, 0.95, 1e-8, 0.1, 0, 0});
  };
  measure("adamw, random rounding", size * adamw_bytes, [&] { run(std::nullopt); });
  measure("adamw, master weights", size * adamw_master_bytes, [&] { run(master); });
  Buffer m16(Dtype::bf16, F, C), v16(Dtype::bf16, F, C), m8(Dtype::u8, F, C), v8(Dtype::u8, F, C);
  Buffer m_scales(Dtype::f32, 1, F * C / adamw_block), v_scales(Dtype::f32, 1, F * C / adamw_block);
  for (const Buffer* zero : {&m16, &v16, &m8, &v8, &m_scales, &v_scales}) fill(context(), *zero, 0);
  const auto run_narrow = [&](const AdamwStates& states, const Tensor& by) {
    adamw(context(), parameter, std::nullopt, by, states, factor, num_steps, {1e-5, 0.9, 0.95, 1e-8, 0.1, 0, 0});
  };
  measure("adamw, random rounding, states in bf16", size * (adamw_bytes - 8), [&] { run_narrow({m16, v16, {}, {}}, gradient); });
  measure("adamw, random rounding, states in 8 bits", size * (adamw_bytes - 12 + 4.0 * 4 / adamw_block), [&] {
    run_narrow({m8, v8, m_scales, v_scales}, gradient);
  });
  const Buffer gradient16 = std::move(Buffer(Dtype::bf16, F, C).random());
  measure("adamw, random rounding, states in 8 bits, gradient in bf16", size * (adamw_bytes - 14 + 4.0 * 4 / adamw_block), [&] {
    run_narrow({m8, v8, m_scales, v_scales}, gradient16);
  });
  measure("sum_of_squares", size * 4, [&] { sum_of_squares(context(), gradient, sum, partials); });
  measure("cast, f32 to bf16", size * (4 + 2), [&] { cast(context(), gradient, parameter); });
  measure("fill, f32", size * 4, [&] { fill(context(), gradient, 0); });
}

// A matrix of an MLP's weights to and from 4 bits.
void nf4() {
  constexpr std::int64_t n = F * C, num_blocks = n / nf4_block;
  Buffer x(Dtype::bf16, 1, n), codes(Dtype::u8, 1, n / 2), absmax(Dtype::u8, 1, num_blocks), offset(Dtype::f32, 1, 1);
  Buffer scales(Dtype::f32, 1, num_blocks / nf4_blocks_group), largest(Dtype::f32, 1, num_blocks);
  x.random(0.02);
  const Nf4 narrow{codes, absmax, scales, offset};
  const double narrow_bytes = bytes_of(codes) + bytes_of(absmax) + bytes_of(scales);
  measure("nf4_quantize", bytes_of(x) + narrow_bytes, [&] { nf4_quantize(context(), x, narrow, largest); });
  measure("nf4_dequantize", bytes_of(x) + narrow_bytes, [&] { nf4_dequantize(context(), narrow, x); });
}

}  // namespace

void kernels() {
  for (const std::int64_t N : {4096, 8192}) glu(N), norm_and_rope(N), elementwise(N), embeddings(N);
  cross_entropies(4096);
  optimizer();
  nf4();
}

}  // namespace mst::bench
