// Cross-entropy on CUDA, emulated or on a GPU, against the CPU's: rows that blocks and clusters hold, rows that are read twice.
#include "layouts.h"
#include "ops/all.h"

namespace mst::test {
namespace {

TEST(CudaOps, CrossEntropy) {
  struct Variant {
    double label_smoothing, z_loss, softcap;
  };
  for_layouts([](Layout layout) {
    if (layout.gap == 8) layout.gap = 64 - layout.cols % 64;  // rows begin where vectors do, whatever their length
    for (const Variant& v : {Variant{0, 0, 0}, Variant{0.1, 1e-2, 0}, Variant{0.2, 1e-2, 3}}) {
      const std::int64_t M = layout.rows, V = layout.cols;
      HostTensor targets = HostTensor::vector(Dtype::i32, M), weights = HostTensor::vector(Dtype::f32, M).randomize(4);
      for (std::int64_t m = 0; m < M; ++m) targets.set(0, m, m == 3 ? -100 : static_cast<double>((m * 7 + V - 1) % V));
      HostTensor expected = layout.make().randomize(1, 3), found = expected;
      const auto outputs = [&] { return std::vector<HostTensor>(5, HostTensor::vector(Dtype::f32, M).fill(NAN)); };
      std::vector<HostTensor> e = outputs(), f = outputs();
      const LossOptions options{-100, v.label_smoothing, v.z_loss, v.softcap};
      cpu::cross_entropy(cpu_context(), expected.cpu(), {targets.cpu(), weights.cpu()},
                         {e[0].cpu(), e[1].cpu(), e[2].cpu(), e[3].cpu(), e[4].cpu()}, options, 0, true);
      cuda::cross_entropy(cuda_context(), found.cuda(), {targets.cuda(), weights.cuda()},
                          {f[0].cuda(), f[1].cuda(), f[2].cuda(), f[3].cuda(), f[4].cuda()}, options, 0, true);
      for (int i = 0; i < 5; ++i)
        for (std::int64_t m = 0; m < M; ++m) EXPECT_NEAR(f[i].get(0, m), e[i].get(0, m), 2e-5) << "output " << i << " of row " << m;
      for (std::int64_t m = 0; m < M; ++m)
        for (std::int64_t c = 0; c < V; ++c) ASSERT_NEAR(found.get(m, c), expected.get(m, c), layout.dtype == Dtype::bf16 ? 2e-2 : 2e-6);
    }
  });
}

// Rows that one block holds, that clusters of 2, 4 and 8 hold, and that are read twice: too long, or before clusters.
TEST(CudaOps, CrossEntropyOfWideRows) {
  constexpr std::int64_t M = 3;
  struct Row {
    Dtype dtype;
    std::int64_t V;
    unsigned cluster_size;
  };
  for (const bool reversed : orders())
    for (const Row& row : {Row{Dtype::f32, 20008, 8}, Row{Dtype::f32, 20003, 1}, Row{Dtype::bf16, 20003, 8}, Row{Dtype::bf16, 50000, 8},
                           Row{Dtype::bf16, 50000, 1}, Row{Dtype::f32, 50003, 8}, Row{Dtype::bf16, 131077, 8}, Row{Dtype::bf16, 262200, 8}})
      for (const auto& [is_plain, softcap] : {std::pair{false, 0}, {true, 0}, {false, 30}, {true, 30}}) {
        const auto [dtype, V, cluster_size] = row;
        SCOPED_TRACE(message_of(name_of(dtype), " V ", V, " clusters of ", cluster_size, " soft-cap ", softcap, is_plain ? " plain" : ""));
        run_reversed(reversed);
        give_clusters(cluster_size);
        HostTensor logits = HostTensor(dtype, M, V, 64 - V % 64).randomize(1, 3), found = logits,
                   targets = HostTensor::vector(Dtype::i32, M);
        for (std::int64_t m = 0; m < M; ++m) targets.set(0, m, m == 0 ? -100 : static_cast<double>(V - 1 - (m - 1) * 7001));
        std::vector<HostTensor> e(5, HostTensor::vector(Dtype::f32, M).fill(0)), f = e;
        const double smoothing = is_plain ? 0 : 0.1;
        const auto output = [&](HostTensor& tensor, auto on) { return is_plain ? std::nullopt : OptionalTensor(on(tensor)); };
        const auto cpu = [](HostTensor& tensor) { return tensor.cpu(); };
        const auto cuda = [](HostTensor& tensor) { return tensor.cuda(); };
        const LossOptions options{-100, smoothing, 1e-3, static_cast<double>(softcap)};
        cpu::cross_entropy(cpu_context(), logits.cpu(), {targets.cpu()},
                           {e[0].cpu(), e[1].cpu(), e[2].cpu(), output(e[3], cpu), output(e[4], cpu)}, options, 0, true);
        cuda::cross_entropy(cuda_context(), found.cuda(), {targets.cuda()},
                            {f[0].cuda(), f[1].cuda(), f[2].cuda(), output(f[3], cuda), output(f[4], cuda)}, options, 0, true);
        EXPECT_CLOSE(found, logits, dtype == Dtype::bf16 ? 4e-3 : 2e-6);
        for (std::size_t i = 0; i < e.size(); ++i) EXPECT_CLOSE(f[i], e[i], i == 3 ? 3e-5 : 2e-6) << i;  // the entropy is a difference
      }
  give_clusters(8);
}

TEST(CudaOps, TheFirstOfEqualLogitsIsTheArgmax) {
  constexpr std::int64_t V = 3001;
  const std::int64_t columns[] = {0, 3, 4, 7, 8, 700, 2999, 3000};  // in one vector, and in others'
  for (const std::int64_t gap : {7, 0})
    for (const std::int64_t target : columns)
      for (const std::int64_t other : columns) {
        HostTensor logits = HostTensor(Dtype::bf16, 2, V, gap).fill(0), targets = HostTensor::vector(Dtype::i32, 2);
        HostTensor losses = HostTensor::vector(Dtype::f32, 2), correct = HostTensor::vector(Dtype::f32, 2).fill(NAN);
        for (std::int64_t m = 0; m < 2; ++m)
          targets.set(0, m, static_cast<double>(target)), logits.set(m, target, 2), logits.set(m, other, 2);
        cuda::cross_entropy(cuda_context(), logits.cuda(), {targets.cuda()}, {losses.cuda(), {}, {}, {}, correct.cuda()}, {}, 0, false);
        for (std::int64_t m = 0; m < 2; ++m) EXPECT_EQ(correct.get(0, m), target <= other) << target << " and " << other;
      }
}

// Logits as a mask of the vocabulary makes them, 0 times which is not 0, and some whose tanh is 1.
TEST(CudaOps, CrossEntropyOfExtremeLogits) {
  constexpr std::int64_t M = 2, V = 1032;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const double softcap : {0, 30})
      for (const bool is_plain : {false, true}) {
        HostTensor logits = HostTensor(dtype, M, V).randomize(1, 3), targets = HostTensor::vector(Dtype::i32, M);
        for (std::int64_t v = 0; v < V; ++v) {
          if (v < 64 || v % 3 == 0) logits.set(0, v, -INFINITY);
          if (softcap > 0 && v % 7 == 0) logits.set(1, v, v % 2 ? 1e30 : -300);
        }
        targets.set(0, 0, 64), targets.set(0, 1, 5);
        HostTensor found = logits;
        std::vector<HostTensor> e(3, HostTensor::vector(Dtype::f32, M).fill(0)), f = e;
        const auto output = [&](const Tensor& tensor) { return is_plain ? std::nullopt : OptionalTensor(tensor); };
        const LossOptions options{-100, 0, 0, softcap};
        cpu::cross_entropy(cpu_context(), logits.cpu(), {targets.cpu()}, {e[0].cpu(), {}, {}, output(e[1].cpu()), output(e[2].cpu())},
                           options, 0, true);
        cuda::cross_entropy(cuda_context(), found.cuda(), {targets.cuda()}, {f[0].cuda(), {}, {}, output(f[1].cuda()), output(f[2].cuda())},
                            options, 0, true);
        EXPECT_CLOSE(found, logits, dtype == Dtype::bf16 ? 4e-3 : 2e-6);
        for (std::size_t i = 0; i < e.size(); ++i) EXPECT_CLOSE(f[i], e[i], 1e-5) << i;
      }
}

TEST(CudaOps, CrossEntropyOfNaN) {
  constexpr std::int64_t M = 2, V = 1032;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const double softcap : {0, 30}) {
      HostTensor logits = HostTensor(dtype, M, V).randomize(1), targets = HostTensor::vector(Dtype::i32, M).fill(8);
      HostTensor losses = HostTensor::vector(Dtype::f32, M);
      logits.set(0, 777, NAN);
      cuda::cross_entropy(cuda_context(), logits.cuda(), {targets.cuda()}, {losses.cuda()}, {-100, 0, 0, softcap}, 0, true);
      EXPECT_TRUE(std::isnan(losses.get(0, 0)) && std::isnan(logits.get(0, 0)));
      EXPECT_TRUE(std::isfinite(losses.get(0, 1)) && std::isfinite(logits.get(1, 777)));
    }
}

TEST(CudaOps, CrossEntropySums) {
  for (const std::int64_t N : {1, 33, 5000}) {
    HostTensor losses = HostTensor::vector(Dtype::f32, N).randomize(1), weights = HostTensor::vector(Dtype::f32, N).randomize(2);
    HostTensor targets = HostTensor::vector(Dtype::i32, N);
    for (std::int64_t n = 0; n < N; ++n) targets.set(0, n, n % 3 ? n : -100);
    HostTensor expected = HostTensor::vector(Dtype::f32, 1), found = expected;
    cpu::cross_entropy_sum(cpu_context(), losses.cpu(), weights.cpu(), expected.cpu(), 0.5);
    cuda::cross_entropy_sum(cuda_context(), losses.cuda(), weights.cuda(), found.cuda(), 0.5);
    EXPECT_CLOSE(found, expected, 1e-6);
    for (const bool weighted : {false, true}) {
      cpu::cross_entropy_divisor(cpu_context(), targets.cpu(), weighted ? OptionalTensor(weights.cpu()) : std::nullopt, expected.cpu(),
                                 -100);
      cuda::cross_entropy_divisor(cuda_context(), targets.cuda(), weighted ? OptionalTensor(weights.cuda()) : std::nullopt, found.cuda(),
                                  -100);
      EXPECT_CLOSE(found, expected, 1e-6);
    }
  }
}

}  // namespace
}  // namespace mst::test
