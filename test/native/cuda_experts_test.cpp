// The ops of mixtures of experts on CUDA, emulated or on a GPU, against the CPU's.
#include "ops/all.h"
#include "support.h"

namespace mst::test {
namespace {

// Experts of M tokens, k different ones each; some of the E have none.
HostTensor random_experts(std::int64_t M, std::int64_t k, std::int64_t E, unsigned seed) {
  HostTensor experts(Dtype::i32, M, k);
  std::mt19937 generator(seed);
  for (std::int64_t m = 0; m < M; ++m) {
    const auto first = static_cast<std::int64_t>(generator() % 5 == 0 ? 0 : generator()) % E;
    for (std::int64_t j = 0; j < k; ++j) experts.set(m, j, static_cast<double>((std::abs(first) + j) % E));
  }
  return experts;
}

struct Sorted {
  HostTensor offsets, order, places;
  Sorted(std::int64_t E, std::int64_t R)
      : offsets(HostTensor::vector(Dtype::i32, E + 1)),
        order(HostTensor::vector(Dtype::i32, R)),
        places(HostTensor::vector(Dtype::i32, R)) {}
};

Sorted sorted(const HostTensor& experts, std::int64_t E) {
  const Sorted result(E, experts.rows() * experts.cols());
  cpu::routing_sort(cpu_context(), experts.cpu(), result.offsets.cpu(), result.order.cpu(), result.places.cpu());
  return result;
}

// Probabilities, experts, weights and gradients of logits; rows with equal logits, and one that is not finite.
TEST(CudaExperts, Routing) {
  struct Case {
    std::int64_t M, E, k;
  };
  for (const bool reversed : orders()) {
    run_reversed(reversed);
    for (const auto& [M, E, k] : {Case{21, 8, 2}, {9, 1, 1}, {13, 100, 8}, {5, 33, 33}})
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const bool normalized : {false, true}) {
          SCOPED_TRACE(message_of(name_of(dtype), " E ", E, " k ", k, normalized ? " normalized" : ""));
          HostTensor logits = HostTensor(dtype, M, E, 3).randomize(5, 2);
          for (std::int64_t e = 0; e < E; ++e) logits.set(1, e, static_cast<double>(e / 2 % 2));
          HostTensor probabilities(Dtype::f32, M, E), experts(Dtype::i32, M, k), weights(Dtype::f32, M, k);
          HostTensor found_probabilities(Dtype::f32, M, E), found_experts(Dtype::i32, M, k), found_weights(Dtype::f32, M, k);
          cpu::routing_forward(cpu_context(), logits.cpu(), probabilities.cpu(), experts.cpu(), weights.cpu(), normalized);
          cuda::routing_forward(cuda_context(), logits.cuda(), found_probabilities.cuda(), found_experts.cuda(), found_weights.cuda(),
                                normalized);
          EXPECT_CLOSE(found_probabilities, probabilities, 1e-6);
          EXPECT_CLOSE(found_weights, weights, 1e-6);
          EXPECT_CLOSE(found_experts, experts, 0);
          const HostTensor dweights = HostTensor(Dtype::f32, M, k).randomize(6);
          HostTensor dlogits(dtype, M, E, 3), found_dlogits(dtype, M, E, 3);
          cpu::routing_backward(cpu_context(), dweights.cpu(), probabilities.cpu(), experts.cpu(), weights.cpu(), dlogits.cpu(),
                                normalized);
          cuda::routing_backward(cuda_context(), dweights.cuda(), probabilities.cuda(), experts.cuda(), weights.cuda(),
                                 found_dlogits.cuda(), normalized);
          EXPECT_CLOSE(found_dlogits, dlogits, dtype == Dtype::bf16 ? 4e-3 : 2e-6);
          logits.set(0, E - 1, NAN);
          cuda::routing_forward(cuda_context(), logits.cuda(), found_probabilities.cuda(), found_experts.cuda(), found_weights.cuda(),
                                normalized);
          cpu::routing_forward(cpu_context(), logits.cpu(), probabilities.cpu(), experts.cpu(), weights.cpu(), normalized);
          for (std::int64_t j = 0; j < k; ++j) {
            EXPECT_EQ(found_experts.get(0, j), static_cast<double>(j));
            EXPECT_EQ(experts.get(0, j), static_cast<double>(j));
            EXPECT_TRUE(std::isnan(found_weights.get(0, j)));
            EXPECT_TRUE(std::isnan(weights.get(0, j)));
          }
        }
  }
  run_reversed(false);
}

// Fewer pairs than threads, and more.
TEST(CudaExperts, Sort) {
  struct Case {
    std::int64_t M, k, E;
  };
  for (const bool reversed : orders()) {
    run_reversed(reversed);
    for (const auto& [M, k, E] : {Case{1, 1, 1}, {7, 2, 5}, {1200, 2, 4}, {300, 8, 40}}) {
      const HostTensor experts = random_experts(M, k, E, 7);
      const Sorted expected = sorted(experts, E), found(E, M * k);
      cuda::routing_sort(cuda_context(), experts.cuda(), found.offsets.cuda(), found.order.cuda(), found.places.cuda());
      EXPECT_CLOSE(found.offsets, expected.offsets, 0);
      EXPECT_CLOSE(found.order, expected.order, 0);
      EXPECT_CLOSE(found.places, expected.places, 0);
      EXPECT_EQ(expected.offsets.get(0, E), static_cast<double>(M * k));
    }
  }
  run_reversed(false);
}

// In vectors, and with rows that begin anywhere.
TEST(CudaExperts, Rows) {
  constexpr std::int64_t M = 19, k = 3, E = 6, R = M * k;
  const HostTensor experts = random_experts(M, k, E, 8);
  const Sorted s = sorted(experts, E);
  const HostTensor weights = HostTensor(Dtype::f32, M, k).randomize(1);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
    for (const auto& [C, gap] : {std::pair<std::int64_t, std::int64_t>{64, 0}, {1032, 8}, {33, 3}}) {
      SCOPED_TRACE(message_of(name_of(dtype), " C ", C));
      const double limit = dtype == Dtype::bf16 ? 4e-3 : 2e-6;
      const HostTensor x = HostTensor(dtype, M, C, gap).randomize(2), dy = HostTensor(dtype, R, C, gap).randomize(3);
      const HostTensor gate = HostTensor(dtype, R, C, gap).randomize(4), up = HostTensor(dtype, R, C, gap).randomize(5);
      HostTensor rows(dtype, R, C, gap), found_rows(dtype, R, C, gap), y(dtype, M, C, gap), found_y(dtype, M, C, gap);
      cpu::routed_gather(cpu_context(), x.cpu(), s.order.cpu(), rows.cpu());
      cuda::routed_gather(cuda_context(), x.cuda(), s.order.cuda(), found_rows.cuda());
      EXPECT_CLOSE(found_rows, rows, 0);
      for (const bool is_weighted : {false, true}) {
        cpu::routed_sum(cpu_context(), dy.cpu(), s.places.cpu(), is_weighted ? OptionalTensor(weights.cpu()) : std::nullopt, y.cpu());
        cuda::routed_sum(cuda_context(), dy.cuda(), s.places.cuda(), is_weighted ? OptionalTensor(weights.cuda()) : std::nullopt,
                         found_y.cuda());
        EXPECT_CLOSE(found_y, y, limit);
      }
      for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
        HostTensor d = dy, g = gate, u = up, found_d = dy, found_g = gate, found_u = up;  // in place
        HostTensor dweights(Dtype::f32, M, k), found_dweights(Dtype::f32, M, k);
        cpu::routed_glu_backward(cpu_context(), {d.cpu(), g.cpu(), u.cpu(), g.cpu(), u.cpu(), d.cpu()}, s.order.cpu(), weights.cpu(),
                                 dweights.cpu(), activation);
        cuda::routed_glu_backward(cuda_context(),
                                  {found_d.cuda(), found_g.cuda(), found_u.cuda(), found_g.cuda(), found_u.cuda(), found_d.cuda()},
                                  s.order.cuda(), weights.cuda(), found_dweights.cuda(), activation);
        EXPECT_CLOSE(found_d, d, limit);
        EXPECT_CLOSE(found_g, g, limit);
        EXPECT_CLOSE(found_u, u, limit);
        EXPECT_CLOSE(found_dweights, dweights, 2e-5);
      }
    }
}

struct GroupedShape {
  std::int64_t M, k, E, n, inner, gap;
};

void expect_grouped(const GroupedShape& shape, Dtype dtype) {
  const auto [M, k, E, n, inner, gap] = shape;
  SCOPED_TRACE(message_of(name_of(dtype), " M ", M, " E ", E, " n ", n, " inner ", inner));
  const std::int64_t R = M * k;
  const Sorted s = sorted(random_experts(M, k, E, 9), E);
  const HostTensor scratch = HostTensor::vector(Dtype::f64, 1 << 20);
  const HostTensor a = HostTensor(dtype, R, inner, gap).randomize(1);
  for (const bool transpose_b : {false, true}) {
    const HostTensor b = HostTensor(dtype, E * (transpose_b ? n : inner), transpose_b ? inner : n, gap).randomize(2);
    HostTensor c(dtype, R, n, gap), found(dtype, R, n, gap);
    found.fill(NAN);
    cpu::grouped_matmul(cpu_context(), a.cpu(), b.cpu(), c.cpu(), s.offsets.cpu(), workspace_of(scratch.cpu()), transpose_b);
    cuda::grouped_matmul(cuda_context(), a.cuda(), b.cuda(), found.cuda(), s.offsets.cuda(), {}, transpose_b);
    EXPECT_CLOSE(found, c, dtype == Dtype::bf16 ? 4e-3 : 2e-6);
  }
  const HostTensor b = HostTensor(dtype, R, n, gap).randomize(3);
  for (const Dtype c_dtype : {Dtype::f32, Dtype::bf16}) {
    if (dtype == Dtype::f32 && c_dtype == Dtype::bf16) continue;
    for (const double beta : {0.0, 1.0}) {
      HostTensor c = HostTensor(c_dtype, E * inner, n, gap).randomize(4), found = c;
      if (beta == 0) found.fill(NAN);
      cpu::grouped_matmul_weights(cpu_context(), a.cpu(), b.cpu(), c.cpu(), s.offsets.cpu(), workspace_of(scratch.cpu()), beta);
      cuda::grouped_matmul_weights(cuda_context(), a.cuda(), b.cuda(), found.cuda(), s.offsets.cuda(), {}, beta);
      EXPECT_CLOSE(found, c, c_dtype == Dtype::bf16 ? 4e-3 : 2e-6);
    }
  }
}

// Experts without rows, with one, with several tiles; whole tiles and what is left over.
TEST(CudaExperts, GroupedProducts) {
  for (const bool reversed : orders()) {
    run_reversed(reversed);
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const GroupedShape& shape : {GroupedShape{1, 1, 3, 5, 7, 3}, {70, 2, 9, 72, 40, 8}, {150, 1, 2, 33, 21, 3}})
        expect_grouped(shape, dtype);
  }
  run_reversed(false);
}

// Enough of them for the large tiles, of both kinds of products.
TEST(CudaExperts, GroupedProductsOfManyTiles) {
  expect_grouped({600, 2, 3, 1300, 40, 8}, Dtype::bf16);
  expect_grouped({150, 2, 2, 1030, 1030, 8}, Dtype::bf16);
}

}  // namespace
}  // namespace mst::test
