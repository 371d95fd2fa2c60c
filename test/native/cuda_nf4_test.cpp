// Weights in 4 bits: the map against its definition, the CUDA kernels against the CPU's, bit for bit.
#include "ops/nf4.h"
#include "support.h"

namespace mst::test {
namespace {

struct Quantized {
  HostTensor codes, absmax, scales, offset = HostTensor::vector(Dtype::f32, 1), largest;

  explicit Quantized(std::int64_t n, std::int64_t num_blocks)
      : codes(HostTensor::vector(Dtype::u8, (n + 1) / 2)),
        absmax(HostTensor::vector(Dtype::u8, num_blocks)),
        scales(HostTensor::vector(Dtype::f32, (num_blocks + nf4_blocks_group - 1) / nf4_blocks_group)),
        largest(HostTensor::vector(Dtype::f32, num_blocks)) {}
  explicit Quantized(std::int64_t n) : Quantized(n, (n + nf4_block - 1) / nf4_block) {}
  Nf4 cpu() const {
    return {codes.cpu(), absmax.cpu(), scales.cpu(), offset.cpu()};
  }
  Nf4 cuda() const {
    return {codes.cuda(), absmax.cuda(), scales.cuda(), offset.cuda()};
  }
};

TEST(Nf4, CodesAreNearest) {
  std::vector<double> map;
  for (int code = 0; code < 256; ++code) map.push_back(nf4_absmax_value(signed_map.magnitudes, static_cast<std::uint8_t>(code)));
  for (int code = 1; code < 256; ++code) ASSERT_LT(map[std::size_t(code - 1)], map[std::size_t(code)]) << code;
  EXPECT_EQ(map[127], 0);
  EXPECT_EQ(map[255], 1);
  EXPECT_NEAR(map[254], 1 - 0.9 / 128, 1e-7);
  for (double x = -1; x <= 1; x += 0.00037) {
    const float value = static_cast<float>(x);
    double nearest = 2;
    for (const double each : map) nearest = std::min(nearest, std::abs(each - double(value)));
    const double found = map[nf4_absmax_code(signed_map.magnitudes, value)];
    ASSERT_NEAR(std::abs(found - double(value)), nearest, 1e-7) << x;
    double nearest_value = 2;
    for (const float each : nf4_values.values) nearest_value = std::min(nearest_value, std::abs(double(each) - double(value)));
    ASSERT_NEAR(std::abs(double(nf4_values.values[nf4_values.code(value)]) - double(value)), nearest_value, 1e-7) << x;
  }
}

// One block, part of a block, several groups with a part of one; a length that is odd.
TEST(CudaNf4, IsTheCpus) {
  for (const bool reversed : orders()) {
    run_reversed(reversed);
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      for (const std::int64_t n : {64, 7, 1, 128 * 9, 64 * 256 * 2 + 64 * 3 + 33}) {
        HostTensor x = HostTensor::vector(dtype, n).randomize(static_cast<unsigned>(n), 0.02);
        if (n > 128)
          for (std::int64_t i = 64; i < 128; ++i) x.set(0, i, 0);  // a block of zeros
        const Quantized expected(n), found(n);
        cpu::nf4_quantize(cpu_context(), x.cpu(), expected.cpu(), expected.largest.cpu());
        cuda::nf4_quantize(cuda_context(), x.cuda(), found.cuda(), found.largest.cuda());
        EXPECT_CLOSE(found.codes, expected.codes, 0);
        EXPECT_CLOSE(found.absmax, expected.absmax, 0);
        EXPECT_CLOSE(found.scales, expected.scales, 0);
        EXPECT_CLOSE(found.offset, expected.offset, 0);
        HostTensor y = HostTensor::vector(dtype, n), expected_y = HostTensor::vector(dtype, n);
        cpu::nf4_dequantize(cpu_context(), expected.cpu(), expected_y.cpu());
        cuda::nf4_dequantize(cuda_context(), expected.cuda(), y.cuda());
        EXPECT_CLOSE(y, expected_y, 0);
        // Not on a multiple of 16 bytes.
        HostTensor apart(dtype, 1, n, 0, 1);
        cuda::nf4_dequantize(cuda_context(), expected.cuda(), apart.cuda());
        for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(apart.get(0, i), expected_y.get(0, i)) << i;
      }
    }
  }
  run_reversed(false);
}

}  // namespace
}  // namespace mst::test
