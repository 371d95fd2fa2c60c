// CPU helpers and products against f64: polynomials over their range, random numbers, every kind of matrix product, device memory.
#include "cpu/math.h"

#include <random>
#include <thread>

#include "cpu/products.h"
#include "ops/matmul.h"
#include "philox.h"
#include "runtime/device.h"
#include "support.h"

namespace mst::test {
namespace {

// Error in units of the last place of the f32 result.
double ulps(float found, double expected) {
  const float rounded = static_cast<float>(expected);
  const double ulp = static_cast<double>(std::nextafter(std::fabs(rounded), INFINITY)) - static_cast<double>(std::fabs(rounded));
  return std::fabs(static_cast<double>(found) - expected) / ulp;
}

TEST(Math, ExpIsWithinItsStatedError) {
  double worst = 0;
  for (double x = -87.2; x < 88.7; x += 1.7e-4)
    worst = std::max(worst, ulps(cpu::exp(static_cast<float>(x)), std::exp(static_cast<double>(static_cast<float>(x)))));
  EXPECT_LE(worst, 1.3);
  EXPECT_EQ(cpu::exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::exp(-INFINITY), 0.0f);
  EXPECT_EQ(cpu::exp(-100.0f), 0.0f);
  EXPECT_EQ(cpu::exp(INFINITY), INFINITY);
  EXPECT_EQ(cpu::exp(89.0f), INFINITY);
  EXPECT_TRUE(std::isnan(cpu::exp(NAN)));
  for (float x = -120; x <= 88; x += 0.0137f) ASSERT_EQ(cpu::softmax_exp(x), cpu::exp(x)) << x;
  EXPECT_EQ(cpu::softmax_exp(-INFINITY), 0.0f);
  EXPECT_EQ(cpu::softmax_exp(89.0f), INFINITY);
  EXPECT_TRUE(std::isnan(cpu::softmax_exp(NAN)));
}

TEST(Math, TanhIsWithinItsStatedError) {
  double worst = 0;
  for (double x = -12; x < 12; x += 1.3e-5)
    worst = std::max(worst, ulps(cpu::tanh(static_cast<float>(x)), std::tanh(static_cast<double>(static_cast<float>(x)))));
  for (float x = 1e-30f; x < 1; x *= 1.01f) worst = std::max(worst, ulps(cpu::tanh(x), std::tanh(static_cast<double>(x))));
  EXPECT_LE(worst, 3);
  EXPECT_EQ(cpu::tanh(0.0f), 0.0f);
  EXPECT_EQ(cpu::tanh(INFINITY), 1.0f);
  EXPECT_EQ(cpu::tanh(-50.0f), -1.0f);
  EXPECT_TRUE(std::isnan(cpu::tanh(NAN)));
}

TEST(Philox, GivesThePublishedNumbers) {
  const auto expect = [](Philox counter, std::uint32_t key0, std::uint32_t key1, Philox expected) {
    const Philox found = philox(counter, key0, key1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(found.words[i], expected.words[i]);
  };
  expect({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
}

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(bf16(1.00390625f).bits, 0x3f80);  // half way: down to even
  EXPECT_EQ(bf16(1.01171875f).bits, 0x3f82);  // half way: up to even
  EXPECT_EQ(bf16(-INFINITY).bits, 0xff80);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(NAN))));
}

struct ProductCase {
  Dtype dtype, c_dtype;
  double tolerance;
};

TEST(Matmul, AllTransposesDtypesStridesAndFactors) {
  std::vector<double> scratch((4 << 20) / sizeof(double));
  const Workspace workspace{scratch.data(), scratch.size() * sizeof(double)};
  for (const ProductCase& p : {ProductCase{Dtype::f32, Dtype::f32, 1e-6}, ProductCase{Dtype::bf16, Dtype::bf16, 4e-3},
                               ProductCase{Dtype::bf16, Dtype::f32, 1e-6}, ProductCase{Dtype::f64, Dtype::f64, 1e-14}})
    for (const auto& [m, k, n] : {std::tuple{1, 1, 1}, {3, 5, 7}, {1, 64, 33}, {65, 1, 17}, {130, 257, 66}, {5, 0, 4}})
      for (const bool transpose_a : {false, true})
        for (const bool transpose_b : {false, true})
          for (const double beta : {0.0, 1.0}) {
            for (const std::int64_t gap : {0, 3}) {
              SCOPED_TRACE(message_of(name_of(p.dtype), " to ", name_of(p.c_dtype), " (", m, ",", k, ",", n, ") ", transpose_a, transpose_b,
                                      " beta ", beta));
              const HostTensor a = HostTensor(p.dtype, transpose_a ? k : m, transpose_a ? m : k, gap).randomize(1);
              const HostTensor b = HostTensor(p.dtype, transpose_b ? n : k, transpose_b ? k : n, gap).randomize(2);
              HostTensor c = HostTensor(p.c_dtype, m, n, gap).randomize(3), expected(Dtype::f64, m, n);
              for (int i = 0; i < m; ++i)
                for (int j = 0; j < n; ++j) {
                  double sum = 0;
                  for (int l = 0; l < k; ++l) sum += (transpose_a ? a.get(l, i) : a.get(i, l)) * (transpose_b ? b.get(j, l) : b.get(l, j));
                  expected.set(i, j, 0.5 * sum + beta * c.get(i, j));
                }
              if (beta == 0) c.fill(NAN);  // must not be read
              cpu::matmul(cpu_context(), a.cpu(), b.cpu(), c.cpu(), workspace, transpose_a, transpose_b, 0.5, beta);
              EXPECT_CLOSE(c, expected, p.tolerance);
              if (HasFailure()) return;
            }
          }
}

TEST(Matmul, NeverFallsToReferenceCode) {
  for (const auto& [dtype, c_dtype] : {std::pair{Dtype::f32, Dtype::f32}, {Dtype::bf16, Dtype::bf16}, {Dtype::bf16, Dtype::f32}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const double beta : {0.0, 1.0}) {
          const HostTensor a(dtype, transpose_a ? 64 : 100, transpose_a ? 100 : 64), b(dtype, transpose_b ? 96 : 64, transpose_b ? 64 : 96);
          const HostTensor c(c_dtype, 100, 96);
          const std::string name =
              cpu::matmul_implementation(cpu_context(), a.cpu(), b.cpu(), c.cpu(), transpose_a, transpose_b, 0.5, beta);
          EXPECT_TRUE(!name.empty() || dtype == Dtype::bf16);  // a CPU without bf16 products: ours are used
          EXPECT_NE(name.substr(0, 3), "ref");
        }
}

// What is left where oneDNN has no bf16 product that fits: with this transposed a it asks for over 1.9 MB on two threads.
TEST(Matmul, WidenedBf16EqualsTheOther) {
  constexpr std::size_t just_ours = (256 * 256 + 256 * 512 + 256 * 512) * sizeof(float);
  std::vector<float> scratch(just_ours / sizeof(float));
  const HostTensor a = HostTensor(Dtype::bf16, 4096, 2816).randomize(1), b = HostTensor(Dtype::bf16, 4096, 1024).randomize(2);
  HostTensor c = HostTensor(Dtype::f32, 2816, 1024).randomize(3), other = c;
  std::vector<double> large((64 << 20) / sizeof(double));
  cpu::matmul(cpu_context(), a.cpu(), b.cpu(), c.cpu(), {scratch.data(), just_ours}, true, false, 0.5, 1);
  cpu::matmul(cpu_context(), a.cpu(), b.cpu(), other.cpu(), {large.data(), large.size() * sizeof(double)}, true, false, 0.5, 1);
  EXPECT_CLOSE(c, other, 1e-5);
}

TEST(Matmul, TellsWhatDisagrees) {
  const HostTensor a(Dtype::f32, 2, 3), b(Dtype::f32, 4, 5), c(Dtype::f32, 2, 5);
  try {
    cpu::matmul(cpu_context(), a.cpu(), b.cpu(), c.cpu(), {}, false, false, 1, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "matmul: inner sizes 3 of a float32(2,3) and 4 of b float32(4,5) differ");
  }
}

TEST(CpuDevice, ItsProductsBelongToItAndToNoThread) {
  cpu::Context context(1), other(1);
  const cpu::Product kind{2, 2, 2, {2, 1}, {2, 1}, 2, Dtype::f32, Dtype::f32, 1, 0};
  const cpu::Primitive* const made = context.products().find(kind);
  ASSERT_NE(made, nullptr);
  std::thread([&] { EXPECT_EQ(context.products().find(kind), made); }).join();
  EXPECT_NE(other.products().find(kind), made);
}

TEST(CpuDevice, MapsAndUnmaps) {
  const auto context = open_cpu(2);
  Memory& memory = context->memory();
  const std::size_t piece = memory.granularity();
  char* const base = memory.reserve(std::size_t{1} << 40);
  memory.map(base, 2 * piece);
  base[0] = 1, base[2 * piece - 1] = 2;
  memory.unmap(base + piece, piece);
  memory.map(base + piece, piece);
  EXPECT_EQ(base[0], 1);
  EXPECT_EQ(base[2 * piece - 1], 0);  // fresh pages
  EXPECT_GT(memory.available_bytes(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace mst::test
