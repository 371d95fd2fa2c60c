// The CUDA kernels, emulated or on a GPU, against the CPU ops: ragged shapes, strided and misaligned rows, in place, both orders of
// threads.

#include "layouts.h"
#include "ops/all.h"

namespace mst::test {
namespace {

TEST(CudaOps, Elementwise) {
  for_layouts([](const Layout& layout) {
    const HostTensor a = layout.make().randomize(1), b = layout.make().randomize(2);
    HostTensor expected = layout.make().fill(NAN), found = layout.make().fill(NAN);
    cpu::add(cpu_context(), a.cpu(), b.cpu(), expected.cpu());
    cuda::add(cuda_context(), a.cuda(), b.cuda(), found.cuda());
    EXPECT_CLOSE(found, expected, 0);
    cpu::add_to(cpu_context(), a.cpu(), expected.cpu());
    cuda::add_to(cuda_context(), a.cuda(), found.cuda());
    EXPECT_CLOSE(found, expected, 0);
    cpu::scale(cpu_context(), a.cpu(), expected.cpu(), -1.7);
    cuda::scale(cuda_context(), a.cuda(), found.cuda(), -1.7);
    EXPECT_CLOSE(found, expected, 0);
    HostTensor factor = HostTensor::vector(Dtype::f32, 1).fill(3), divisor = HostTensor::vector(Dtype::f32, 1).fill(7);
    cpu::scale_by(cpu_context(), a.cpu(), factor.cpu(), divisor.cpu(), expected.cpu());
    cuda::scale_by(cuda_context(), a.cuda(), factor.cuda(), divisor.cuda(), found.cuda());
    EXPECT_CLOSE(found, expected, layout.tolerance());
    HostTensor wide_expected(Dtype::f32, layout.rows, layout.cols), wide_found(Dtype::f32, layout.rows, layout.cols);
    cpu::cast(cpu_context(), a.cpu(), wide_expected.cpu());
    cuda::cast(cuda_context(), a.cuda(), wide_found.cuda());
    EXPECT_CLOSE(wide_found, wide_expected, 0);
    cpu::add_to(cpu_context(), a.cpu(), wide_expected.cpu());
    cuda::add_to(cuda_context(), a.cuda(), wide_found.cuda());
    EXPECT_CLOSE(wide_found, wide_expected, 0);
    HostTensor narrow_expected = HostTensor(Dtype::bf16, layout.rows, layout.cols, layout.gap).randomize(3), narrow_found = narrow_expected;
    cpu::add_to(cpu_context(), a.cpu(), narrow_expected.cpu());
    cuda::add_to(cuda_context(), a.cuda(), narrow_found.cuda());
    EXPECT_CLOSE(narrow_found, narrow_expected, 0);
    cuda::fill(cuda_context(), found.cuda(), 2.5);
    expected.fill(2.5);
    EXPECT_CLOSE(found, expected, 0);
  });
}

TEST(CudaOps, RmsNorm) {
  for_layouts([](const Layout& layout) {
    const HostTensor x = layout.make().randomize(1), dy = layout.make().randomize(2);
    HostTensor weight = HostTensor::vector(layout.dtype, layout.cols).randomize(3);
    HostTensor expected = layout.make(), found = layout.make();
    cpu::rms_norm_forward(cpu_context(), x.cpu(), weight.cpu(), expected.cpu(), 1e-5, 1);
    cuda::rms_norm_forward(cuda_context(), x.cuda(), weight.cuda(), found.cuda(), 1e-5, 1);
    EXPECT_CLOSE(found, expected, layout.tolerance());
    HostTensor dweight_expected = HostTensor::vector(Dtype::f32, layout.cols).fill(1), dweight_found = dweight_expected;
    HostTensor partials(Dtype::f32, 4, layout.cols), partials_found(Dtype::f32, 4, layout.cols);
    cpu::rms_norm_backward(cpu_context(), dy.cpu(), x.cpu(), weight.cpu(), expected.cpu(), dweight_expected.cpu(), partials.cpu(), 1e-2, 1);
    partials_found.fill(NAN);
    cuda::rms_norm_backward(cuda_context(), dy.cuda(), x.cuda(), weight.cuda(), found.cuda(), dweight_found.cuda(), partials_found.cuda(),
                            1e-2, 1);
    // with one column dx is a difference of nearly equal numbers
    EXPECT_CLOSE(found, expected, layout.cols == 1 ? 1e-3 + 10 * layout.tolerance() : 5 * layout.tolerance());
    EXPECT_CLOSE(dweight_found, dweight_expected, 2e-6);
    HostTensor narrow_expected = HostTensor::vector(Dtype::bf16, layout.cols).fill(1), narrow_found = narrow_expected;
    cpu::rms_norm_backward(cpu_context(), dy.cpu(), x.cpu(), weight.cpu(), expected.cpu(), narrow_expected.cpu(), partials.cpu(), 1e-2, 1);
    cuda::rms_norm_backward(cuda_context(), dy.cuda(), x.cuda(), weight.cuda(), found.cuda(), narrow_found.cuda(), partials_found.cuda(),
                            1e-2, 1);
    EXPECT_CLOSE(narrow_found, narrow_expected, 4e-3);
    HostTensor in_place = dy;
    cuda::rms_norm_backward(cuda_context(), in_place.cuda(), x.cuda(), weight.cuda(), in_place.cuda(), std::nullopt, std::nullopt, 1e-2, 1);
    EXPECT_CLOSE(in_place, found, 0);
  });
}

// Rows that eight lanes take, that warps take, that blocks take, and that are longer than these hold.
TEST(CudaOps, RmsNormOfWideRows) {
  for (const bool reversed : orders())
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const std::int64_t C : {64, 128, 136, 1024, 1032, 2056, 8200}) {
        SCOPED_TRACE(message_of(name_of(dtype), " C ", C));
        run_reversed(reversed);
        const std::int64_t N = C < 1024 ? 600 : 29;  // several for each of a block's teams
        const double tolerance = dtype == Dtype::bf16 ? 4e-3 : 1e-6;
        const HostTensor x = HostTensor(dtype, N, C, 8).randomize(1), dy = HostTensor(dtype, N, C).randomize(2);
        const HostTensor weight = HostTensor::vector(Dtype::f32, C).randomize(3);
        HostTensor expected(dtype, N, C), found(dtype, N, C), dweight = HostTensor::vector(Dtype::f32, C).fill(1), dweight_found = dweight;
        HostTensor partials(Dtype::f32, 4, C), partials_found = HostTensor(Dtype::f32, 4, C).fill(NAN);
        cpu::rms_norm_forward(cpu_context(), x.cpu(), weight.cpu(), expected.cpu(), 1e-5, 0);
        cuda::rms_norm_forward(cuda_context(), x.cuda(), weight.cuda(), found.cuda(), 1e-5, 0);
        EXPECT_CLOSE(found, expected, tolerance);
        cpu::rms_norm_backward(cpu_context(), dy.cpu(), x.cpu(), weight.cpu(), expected.cpu(), dweight.cpu(), partials.cpu(), 1e-5, 0);
        cuda::rms_norm_backward(cuda_context(), dy.cuda(), x.cuda(), weight.cuda(), found.cuda(), dweight_found.cuda(),
                                partials_found.cuda(), 1e-5, 0);
        EXPECT_CLOSE(found, expected, tolerance);
        EXPECT_CLOSE(dweight_found, dweight, 2e-6);
      }
}

TEST(CudaOps, Bias) {
  for_layouts([](const Layout& layout) {
    const HostTensor dy = layout.make().randomize(1);
    HostTensor bias = HostTensor::vector(layout.dtype, layout.cols).randomize(2);
    HostTensor expected = layout.make().randomize(3), found = expected;
    cpu::bias_forward(cpu_context(), expected.cpu(), bias.cpu());
    cuda::bias_forward(cuda_context(), found.cuda(), bias.cuda());
    EXPECT_CLOSE(found, expected, 0);
    HostTensor dbias_expected = HostTensor::vector(Dtype::f32, layout.cols).fill(1), dbias_found = dbias_expected;
    HostTensor partials(Dtype::f32, 4, layout.cols), partials_found(Dtype::f32, 4, layout.cols);
    cpu::bias_backward(cpu_context(), dy.cpu(), dbias_expected.cpu(), partials.cpu());
    partials_found.fill(NAN);
    cuda::bias_backward(cuda_context(), dy.cuda(), dbias_found.cuda(), partials_found.cuda());
    EXPECT_CLOSE(dbias_found, dbias_expected, 2e-6);
    HostTensor narrow_expected = HostTensor::vector(Dtype::bf16, layout.cols).fill(1), narrow_found = narrow_expected;
    cpu::bias_backward(cpu_context(), dy.cpu(), narrow_expected.cpu(), partials.cpu());
    cuda::bias_backward(cuda_context(), dy.cuda(), narrow_found.cuda(), partials_found.cuda());
    EXPECT_CLOSE(narrow_found, narrow_expected, 4e-3);
  });
}

TEST(CudaOps, Dropout) {
  for_layouts([](const Layout& layout) {
    const HostTensor x = layout.make().randomize(1);
    HostTensor expected = layout.make(), found = layout.make();
    cpu::dropout(cpu_context(), x.cpu(), expected.cpu(), {0.4, 7, 9}, 8, 3);
    cuda::dropout(cuda_context(), x.cuda(), found.cuda(), {0.4, 7, 9}, 8, 3);
    EXPECT_CLOSE(found, expected, layout.tolerance());
  });
}

TEST(CudaOps, Softcap) {
  for_layouts([](const Layout& layout) {
    const HostTensor x = layout.make().randomize(1), dy = layout.make().randomize(2);
    HostTensor expected = layout.make(), found = layout.make();
    cpu::softcap_forward(cpu_context(), x.cpu(), expected.cpu(), 0.7);
    cuda::softcap_forward(cuda_context(), x.cuda(), found.cuda(), 0.7);
    EXPECT_CLOSE(found, expected, layout.tolerance());
    const HostTensor y = expected;
    cpu::softcap_backward(cpu_context(), dy.cpu(), y.cpu(), expected.cpu(), 0.7);
    cuda::softcap_backward(cuda_context(), dy.cuda(), y.cuda(), found.cuda(), 0.7);
    EXPECT_CLOSE(found, expected, layout.tolerance());
  });
}

TEST(CudaOps, SoftcapOfSmallScores) {
  const HostTensor x = HostTensor(Dtype::bf16, 1, 8).fill(1e-5);
  HostTensor y(Dtype::bf16, 1, 8);
  cuda::softcap_forward(cuda_context(), x.cuda(), y.cuda(), 30);
  EXPECT_CLOSE(y, x, 0);
}

TEST(CudaOps, Glu) {
  for_layouts([](const Layout& layout) {
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
      const HostTensor gate = layout.make().randomize(1, 2), up = layout.make().randomize(2), dy = layout.make().randomize(3);
      HostTensor expected = layout.make(), found = layout.make();
      cpu::glu_forward(cpu_context(), gate.cpu(), up.cpu(), expected.cpu(), activation);
      cuda::glu_forward(cuda_context(), gate.cuda(), up.cuda(), found.cuda(), activation);
      EXPECT_CLOSE(found, expected, layout.tolerance());
      HostTensor dgate = layout.make(), dup = layout.make(), y = layout.make();
      cpu::glu_backward(cpu_context(), dy.cpu(), gate.cpu(), up.cpu(), dgate.cpu(), dup.cpu(), y.cpu(), activation);
      HostTensor a = gate, b = up, c = dy;  // in place, as the chunk loop calls it
      cuda::glu_backward(cuda_context(), c.cuda(), a.cuda(), b.cuda(), a.cuda(), b.cuda(), c.cuda(), activation);
      EXPECT_CLOSE(a, dgate, layout.tolerance());
      EXPECT_CLOSE(b, dup, layout.tolerance());
      EXPECT_CLOSE(c, y, layout.tolerance());
    }
  });
}

HostTensor sort_scratch(std::int64_t N) {
  return HostTensor::vector(Dtype::f64, 2 * N);
}

TEST(CudaOps, Embedding) {
  for_layouts([](const Layout& layout) {
    HostTensor table = layout.make().randomize(1), ids = HostTensor::vector(Dtype::i32, 9);
    for (int n = 0; n < 9; ++n) ids.set(0, n, (n * 5 % 4) % static_cast<int>(layout.rows));
    HostTensor expected(layout.dtype, 9, layout.cols), found(layout.dtype, 9, layout.cols);
    cpu::embedding_forward(cpu_context(), table.cpu(), ids.cpu(), expected.cpu());
    cuda::embedding_forward(cuda_context(), table.cuda(), ids.cuda(), found.cuda());
    EXPECT_CLOSE(found, expected, 0);
    const HostTensor dy = HostTensor(layout.dtype, 9, layout.cols, layout.gap).randomize(2);
    HostTensor dexpected = HostTensor(Dtype::f32, layout.rows, layout.cols).fill(1), dfound = dexpected, scratch = sort_scratch(9);
    cpu::embedding_backward(cpu_context(), dy.cpu(), ids.cpu(), dexpected.cpu(), workspace_of(scratch.cpu()));
    cuda::embedding_backward(cuda_context(), dy.cuda(), ids.cuda(), dfound.cuda(), workspace_of(scratch.cuda()));
    EXPECT_CLOSE(dfound, dexpected, 0);
    HostTensor narrow_expected = HostTensor(Dtype::bf16, layout.rows, layout.cols).fill(1), narrow_found = narrow_expected;
    cpu::embedding_backward(cpu_context(), dy.cpu(), ids.cpu(), narrow_expected.cpu(), workspace_of(scratch.cpu()));
    cuda::embedding_backward(cuda_context(), dy.cuda(), ids.cuda(), narrow_found.cuda(), workspace_of(scratch.cuda()));
    EXPECT_CLOSE(narrow_found, narrow_expected, 0);
    for (int v = 0; v < layout.rows; ++v)
      for (int c = 0; c < layout.cols; ++c) dexpected.set(v, c, static_cast<float>(bf16(static_cast<float>(dexpected.get(v, c)))));
    EXPECT_CLOSE(narrow_found, dexpected, 0);  // rounded once
  });
}

// Ids of several tiles that are sorted one by one, some of them often, and rows of several slabs.
TEST(CudaOps, EmbeddingOfManyTokens) {
  constexpr std::int64_t N = 700, V = 5;
  for (const bool reversed : orders())
    for (const auto& [dtype, C] : {std::pair<Dtype, std::int64_t>{Dtype::f32, 2056}, {Dtype::bf16, 4104}, {Dtype::bf16, 515}}) {
      run_reversed(reversed);
      HostTensor ids = HostTensor::vector(Dtype::i32, N);
      for (std::int64_t n = 0; n < N; ++n) ids.set(0, n, static_cast<double>(n % 7 == 3 ? 1 : n % 3 * 2));
      const HostTensor dy = HostTensor(dtype, N, C).randomize(1);
      HostTensor expected = HostTensor(Dtype::f32, V, C).fill(1), found = expected, scratch = sort_scratch(N);
      cpu::embedding_backward(cpu_context(), dy.cpu(), ids.cpu(), expected.cpu(), workspace_of(scratch.cpu()));
      cuda::embedding_backward(cuda_context(), dy.cuda(), ids.cuda(), found.cuda(), workspace_of(scratch.cuda()));
      EXPECT_CLOSE(found, expected, 0);
    }
}

TEST(CudaOps, IdsOutOfRangeAreNoted) {
  const auto expect_status = [&](long long what, long long row, long long id, long long V) {
    EXPECT_EQ(take_status(), (std::array<long long, 4>{what, row, id, V}));
  };
  HostTensor table = HostTensor(Dtype::f32, 4, 8).fill(1), y = HostTensor(Dtype::f32, 3, 8).fill(0),
             ids = HostTensor::vector(Dtype::i32, 3);
  ids.set(0, 1, 4);
  cuda::embedding_forward(cuda_context(), table.cuda(), ids.cuda(), y.cuda());
  expect_status(cuda::status_embedding_forward, 1, 4, 4);
  ids.set(0, 1, -1);
  HostTensor scratch = sort_scratch(3);
  cuda::embedding_backward(cuda_context(), y.cuda(), ids.cuda(), table.cuda(), workspace_of(scratch.cuda()));
  expect_status(cuda::status_embedding_backward, 1, -1, 4);
  HostTensor losses = HostTensor::vector(Dtype::f32, 3);
  cuda::cross_entropy(cuda_context(), y.cuda(), {ids.cuda()}, {losses.cuda()}, {}, 100, false);
  expect_status(cuda::status_cross_entropy, 101, -1, 8);
}

TEST(CudaOps, Rope) {
  struct Case {
    std::int64_t D, rotated, num_heads, gap;
    bool is_interleaved = false;
    double growth = 0;
  };
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const bool inverse : {false, true})
      for (const auto& [D, rotated, num_heads, gap, is_interleaved, growth] : {Case{2, 2, 3, 5},
                                                                               {16, 16, 3, 5},
                                                                               {80, 80, 3, 5},
                                                                               {16, 16, 19, 8},
                                                                               {80, 80, 2, 8},
                                                                               {16, 12, 3, 5, false, 0.3},
                                                                               {96, 64, 2, 8},
                                                                               {80, 16, 2, 8, false, 0.3},
                                                                               {16, 16, 3, 5, true},
                                                                               {12, 6, 10, 4, true, 0.3}}) {
        const HostTensor x = HostTensor(dtype, 14, num_heads * D, gap).randomize(1);
        HostTensor frequencies = HostTensor::vector(Dtype::f64, rotated / 2), starts = HostTensor::vector(Dtype::i32, 14);
        for (std::int64_t d = 0; d < rotated / 2; ++d)
          frequencies.set(0, d, 1e6 * std::pow(5e5, -2.0 * static_cast<double>(d) / static_cast<double>(rotated)));
        for (int n = 0; n < 14; ++n) starts.set(0, n, n - n % 5);
        const RopeOptions options{7, D, 1.2, is_interleaved, inverse, growth, 2};
        for (const bool packed : {false, true}) {
          HostTensor expected(dtype, 14, num_heads * D), found(dtype, 14, num_heads * D);
          const auto starts_on = [&](const Tensor& tensor) { return packed ? OptionalTensor(tensor) : std::nullopt; };
          cpu::rope(cpu_context(), x.cpu(), frequencies.cpu(), starts_on(starts.cpu()), expected.cpu(), options);
          cuda::rope(cuda_context(), x.cuda(), frequencies.cuda(), starts_on(starts.cuda()), found.cuda(), options);
          EXPECT_CLOSE(found, expected, dtype == Dtype::bf16 ? 6e-3 : 1e-6);
        }
      }
}

TEST(CudaOps, ReductionsAndAdamW) {
  for (const bool reversed : orders())
    for (const std::int64_t size : {1, 5, 1000}) {
      run_reversed(reversed);
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        const HostTensor x = HostTensor::vector(dtype, size).randomize(1);
        HostTensor sum = HostTensor::vector(Dtype::f32, 1), found = sum, partials = HostTensor::vector(Dtype::f64, 8);
        cpu::sum_of_squares(cpu_context(), x.cpu(), sum.cpu(), partials.cpu());
        cuda::sum_of_squares(cuda_context(), x.cuda(), found.cuda(), partials.cuda());
        EXPECT_CLOSE(found, sum, 1e-6);
        for (const Dtype gradient_dtype : {Dtype::f32, dtype}) {
          HostTensor parameter = HostTensor::vector(dtype, size).randomize(2),
                     gradient = HostTensor::vector(gradient_dtype, size).randomize(3);
          HostTensor m = HostTensor::vector(Dtype::f32, size).randomize(4), v = HostTensor::vector(Dtype::f32, size).fill(0.5), master = m;
          HostTensor parameter2 = parameter, m2 = m, v2 = v, master2 = master, factor = HostTensor::vector(Dtype::f32, 1).fill(0.7);
          HostTensor steps = HostTensor::vector(Dtype::i32, 1).fill(2), steps2 = steps;
          const bool has_master = dtype == Dtype::bf16;
          for (const double f : {0.7, static_cast<double>(NAN)}) {
            factor.fill(f);
            cpu::adamw_count(cpu_context(), steps.cpu(), factor.cpu());
            cuda::adamw_count(cuda_context(), steps2.cuda(), factor.cuda());
            cpu::adamw(cpu_context(), parameter.cpu(), has_master ? OptionalTensor(master.cpu()) : std::nullopt, gradient.cpu(),
                       {m.cpu(), v.cpu(), {}, {}}, factor.cpu(), steps.cpu(), {1e-2, 0.9, 0.95, 1e-8, 0.1, 0, 0});
            cuda::adamw(cuda_context(), parameter2.cuda(), has_master ? OptionalTensor(master2.cuda()) : std::nullopt, gradient.cuda(),
                        {m2.cuda(), v2.cuda(), {}, {}}, factor.cuda(), steps2.cuda(), {1e-2, 0.9, 0.95, 1e-8, 0.1, 0, 0});
          }
          EXPECT_EQ(steps.get(0, 0), 3);
          EXPECT_EQ(steps2.get(0, 0), 3);
          EXPECT_CLOSE(parameter2, parameter, has_master ? 4e-3 : 1e-6);
          if (dtype == Dtype::bf16) {  // rounded at random, by the same words
            HostTensor expected = parameter, found2 = parameter;
            const auto update = [&](Context& context, const Tensor& p, const Tensor& g, const Tensor& mean, const Tensor& square,
                                    const Tensor& step, double rate) {
              adamw(context, p, std::nullopt, g, {mean, square, {}, {}}, std::nullopt, step, {rate, 0.9, 0.95, 1e-8, 0.1, 7, 5});
            };
            HostTensor m3 = m, v3 = v, m4 = m, v4 = v, m5 = m, v5 = v;
            update(cpu_context(), expected.cpu(), gradient.cpu(), m3.cpu(), v3.cpu(), steps.cpu(), 0);
            EXPECT_CLOSE(expected, parameter, 0);  // what bf16 holds stays
            update(cpu_context(), expected.cpu(), gradient.cpu(), m4.cpu(), v4.cpu(), steps.cpu(), 1e-2);
            update(cuda_context(), found2.cuda(), gradient.cuda(), m5.cuda(), v5.cuda(), steps2.cuda(), 1e-2);
            EXPECT_CLOSE(found2, expected, 4e-3);
          }
          EXPECT_CLOSE(m2, m, 1e-6);
          EXPECT_CLOSE(v2, v, 1e-6);
          EXPECT_CLOSE(master2, master, 1e-6);
        }
      }
      HostTensor sums = HostTensor::vector(Dtype::f32, size).fill(4), norm = HostTensor::vector(Dtype::f32, 1), factor = norm, norm2 = norm,
                 factor2 = norm;
      for (const double value : {4.0, 1e-4, static_cast<double>(NAN)}) {
        sums.set(0, size - 1, value);
        cpu::clip_factor(cpu_context(), sums.cpu(), norm.cpu(), factor.cpu(), 1);
        cuda::clip_factor(cuda_context(), sums.cuda(), norm2.cuda(), factor2.cuda(), 1);
        if (std::isnan(value)) {
          EXPECT_TRUE(std::isnan(factor.get(0, 0)) && std::isnan(factor2.get(0, 0)));
        } else {
          EXPECT_CLOSE(norm2, norm, 1e-6);
          EXPECT_CLOSE(factor2, factor, 1e-6);
        }
      }
    }
}

TEST(CudaOps, RandomNormal) {
  for (const std::int64_t size : {1, 6, 4099}) {
    HostTensor expected = HostTensor::vector(Dtype::f32, size), found = expected;
    cpu::random_normal(cpu_context(), expected.cpu(), 0.5, 2, (7ll << 40) + 3, 5, 9);
    cuda::random_normal(cuda_context(), found.cuda(), 0.5, 2, (7ll << 40) + 3, 5, 9);
    EXPECT_CLOSE(found, expected, 1e-6);
  }
}

// The chunk loops on emulated kernels equal the loops on the CPU: chunks of every size, the last one shorter.
TEST(CudaOps, ChunkLoops) {
  constexpr std::int64_t N = 11, C = 8, F = 12, V = 17;
  const HostTensor scratch = HostTensor::vector(Dtype::f64, 1 << 20);
  const HostTensor x = HostTensor(Dtype::f32, N, C).randomize(1), dy = HostTensor(Dtype::f32, N, C).randomize(2);
  const HostTensor gate = HostTensor(Dtype::f32, F, C).randomize(3), up = HostTensor(Dtype::f32, F, C).randomize(4);
  const HostTensor down = HostTensor(Dtype::f32, C, F).randomize(5), head = HostTensor(Dtype::f32, V, C).randomize(6);
  HostTensor targets = HostTensor::vector(Dtype::i32, N);
  for (int n = 0; n < N; ++n) targets.set(0, n, n == 2 ? -100 : n % 5);
  constexpr std::int64_t padded = 20;  // columns of logits, so that rows begin where vectors do
  for (const std::int64_t M : {1, 3, 10, 11}) {
    const auto run = [&](Context& context, auto on) {
      std::vector<HostTensor> results;
      for (const auto& [rows, cols] : {std::pair{N, C}, {N, C}, {F, C}, {F, C}, {C, F}, {N, C}, {V, C}, {1l, N}})
        results.push_back(HostTensor(Dtype::f32, rows, cols).fill(NAN));
      const HostTensor gate_up(Dtype::f32, M, 2 * F), h(Dtype::f32, M, F), logits = HostTensor(Dtype::f32, M, padded).fill(7);
      const Workspace workspace = workspace_of(on(scratch));
      const MlpWeights weights{on(gate), on(up), on(down)};
      const auto new_memory = [&](HostTensor& tensor) { return WeightGradient{on(tensor), true}; };
      const MlpGradients gradients{on(results[1]), new_memory(results[2]), new_memory(results[3]), new_memory(results[4])};
      chunked_mlp_forward(context, on(x), weights, on(results[0]), {on(gate_up), false}, on(h), workspace, Activation::silu, {});
      chunked_mlp_backward(context, on(dy), on(x), weights, gradients, {on(gate_up), false}, on(h), workspace, Activation::silu, {});
      chunked_cross_entropy(context, on(x), {on(head)}, {on(targets)}, {on(results[7])}, {0.1, on(results[5]), on(results[6])}, on(logits),
                            workspace, {});
      for (std::int64_t m = 0; m < M; ++m)
        for (std::int64_t v = V; v < padded; ++v) EXPECT_EQ(logits.get(m, v), 7);
      return results;
    };
    const std::vector<HostTensor> expected = run(cpu_context(), on_cpu);
    const std::vector<HostTensor> found = run(cuda_context(), on_cuda);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_CLOSE(found[i], expected[i], 2e-6) << i << " in chunks of " << M;
  }
}

}  // namespace
}  // namespace mst::test
