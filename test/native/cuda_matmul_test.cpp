// Our products on CUDA, emulated or on a GPU, against the CPU's.
#include "ops/all.h"
#include "ops/own_matmul.h"
#include "support.h"

namespace mst::test {
namespace {

struct ProductShape {
  std::int64_t m, n, k, gap;  // gap 8: rows stay aligned; 3: they do not
};

// All transposes of a product, for each factor of what c had.
void expect_own_matmul(const ProductShape& s, Dtype dtype, Dtype c_dtype, std::initializer_list<double> betas) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      SCOPED_TRACE(message_of(name_of(dtype), " to ", name_of(c_dtype), " m ", s.m, " n ", s.n, " k ", s.k, transpose_a ? " aT" : "",
                              transpose_b ? " bT" : ""));
      const std::int64_t offset = s.gap == 3 ? 1 : 0;
      const HostTensor a = HostTensor(dtype, transpose_a ? s.k : s.m, transpose_a ? s.m : s.k, s.gap, offset).randomize(1);
      const HostTensor b = HostTensor(dtype, transpose_b ? s.n : s.k, transpose_b ? s.k : s.n, s.gap, offset).randomize(2);
      const HostTensor scratch = HostTensor::vector(Dtype::f64, 1 << 20);
      for (const double beta : betas) {
        HostTensor expected = HostTensor(c_dtype, s.m, s.n, s.gap).randomize(3), found = expected;
        if (beta == 0) found.fill(NAN);
        cpu::matmul(cpu_context(), a.cpu(), b.cpu(), expected.cpu(), workspace_of(scratch.cpu()), transpose_a, transpose_b, 0.7, beta);
        cuda::own_matmul(cuda_context(), a.cuda(), b.cuda(), found.cuda(), transpose_a, transpose_b, 0.7, beta);
        EXPECT_CLOSE(found, expected, c_dtype == Dtype::bf16 ? 4e-3 : 2e-6);
      }
    }
}

// Whole tiles and what is left over, rows that begin anywhere.
TEST(CudaOps, OwnMatmul) {
  const ProductShape shapes[] = {{1, 1, 1, 0},    {7, 3, 5, 3},      {64, 64, 32, 0},  {65, 33, 40, 8},   {33, 70, 129, 3},
                                 {16, 200, 8, 8}, {130, 66, 257, 3}, {1, 130, 100, 0}, {128, 192, 200, 8}};
  for (const bool reversed : orders()) {
    run_reversed(reversed);
    for (const auto& [dtype, c_dtype] : {std::pair{Dtype::f32, Dtype::f32}, {Dtype::bf16, Dtype::bf16}, {Dtype::bf16, Dtype::f32}})
      for (const ProductShape& shape : shapes) expect_own_matmul(shape, dtype, c_dtype, {0.0, 1.0, 0.5});
  }
}

// Enough of them for the large ones.
TEST(CudaOps, OwnMatmulOfManyTiles) {
  run_reversed(false);
  for (const ProductShape& shape : {ProductShape{1030, 1800, 200, 8}, ProductShape{1025, 1793, 33, 3}})
    expect_own_matmul(shape, Dtype::bf16, Dtype::bf16, {1.0});
}

}  // namespace
}  // namespace mst::test
