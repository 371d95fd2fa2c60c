// AdamW with states in bf16 and in 8 bits: the CPU's against formulas in f64, the CUDA kernels' against the CPU's.
#include "dynamic_map.h"
#include "ops/adamw.h"
#include "support.h"

namespace mst::test {
namespace {

struct Problem {
  HostTensor parameter, master, gradient, m, v, m_scales, v_scales, num_steps = HostTensor::vector(Dtype::i32, 1);

  Problem(std::int64_t size, Dtype dtype, Dtype states)
      : parameter(HostTensor::vector(dtype, size)),
        master(HostTensor::vector(Dtype::f32, size)),
        gradient(HostTensor::vector(Dtype::f32, size)),
        m(HostTensor::vector(states, size)),
        v(HostTensor::vector(states, size)),
        m_scales(HostTensor::vector(Dtype::f32, (size + adamw_block - 1) / adamw_block)),
        v_scales(HostTensor::vector(Dtype::f32, (size + adamw_block - 1) / adamw_block)) {
    parameter.randomize(1), master.randomize(1), gradient.randomize(2, 1e-2);
    m.fill(states == Dtype::u8 ? 127 : 0), v.fill(0), m_scales.fill(0), v_scales.fill(0), num_steps.fill(0);
  }
  bool is_8bit() const {
    return m.dtype() == Dtype::u8;
  }
  double mean(std::int64_t i) const {
    if (!is_8bit()) return m.get(0, i);
    return m_scales.get(0, i / adamw_block) * signed_value(signed_map.magnitudes, static_cast<std::uint8_t>(m.get(0, i)));
  }
  double square(std::int64_t i) const {
    if (!is_8bit()) return v.get(0, i);
    return v_scales.get(0, i / adamw_block) * unsigned_value(unsigned_map.magnitudes, static_cast<std::uint8_t>(v.get(0, i)));
  }
  // How far a state may lie from its exact value: less than the distance of the two codes, or bf16 numbers, around it.
  template <bool is_signed>
  double room(double exact, double scale) const {
    if (!is_8bit()) return std::abs(exact) / 128;
    const float* const map = is_signed ? signed_map.magnitudes : unsigned_map.magnitudes;
    const int below = magnitude_below<is_signed>(map, scaled_magnitude(static_cast<float>(std::abs(exact)), static_cast<float>(scale)));
    if (below == DynamicMap<is_signed>::size - 1) return 1e-5 * scale;
    return 1.0001 * scale * (map[below + 1] - map[below]);
  }
  void step_on_cpu(const AdamwSettings& settings, bool has_master = false) {
    cpu::adamw_count(cpu_context(), num_steps.cpu(), std::nullopt);
    const AdamwStates states{m.cpu(), v.cpu(), is_8bit() ? OptionalTensor(m_scales.cpu()) : std::nullopt,
                             is_8bit() ? OptionalTensor(v_scales.cpu()) : std::nullopt};
    cpu::adamw(cpu_context(), parameter.cpu(), has_master ? OptionalTensor(master.cpu()) : std::nullopt, gradient.cpu(), states,
               std::nullopt, num_steps.cpu(), settings);
  }
  void step_on_cuda(const AdamwSettings& settings, bool has_master = false) {
    cuda::adamw_count(cuda_context(), num_steps.cuda(), std::nullopt);
    const AdamwStates states{m.cuda(), v.cuda(), is_8bit() ? OptionalTensor(m_scales.cuda()) : std::nullopt,
                             is_8bit() ? OptionalTensor(v_scales.cuda()) : std::nullopt};
    cuda::adamw(cuda_context(), parameter.cuda(), has_master ? OptionalTensor(master.cuda()) : std::nullopt, gradient.cuda(), states,
                std::nullopt, num_steps.cuda(), settings);
  }
};

const AdamwSettings settings{1e-2, 0.9, 0.95, 1e-8, 0.1, 7, 5, 0};

template <bool is_signed>
void check_map(const DynamicMap<is_signed>& map) {
  constexpr int size = DynamicMap<is_signed>::size;
  for (int i = 0; i + 1 < size; ++i) ASSERT_LT(map.magnitudes[i], map.magnitudes[i + 1]) << i;
  for (double x = 1e-9; x <= map.largest(); x *= 1.0007) {
    int below = 0;
    while (below + 1 < size && map.magnitudes[below + 1] <= static_cast<float>(x)) ++below;
    ASSERT_EQ(magnitude_below<is_signed>(map.magnitudes, static_cast<float>(x)), below) << x;
  }
  for (int i = 0; i < size; ++i) ASSERT_EQ(magnitude_below<is_signed>(map.magnitudes, map.magnitudes[i]), i);
  // Rounded by every word once, a value has itself as its mean.
  for (const float x : {3e-8f, 0.7e-6f, 0.0123f, 0.1001f, 0.5f}) {
    double sum = 0;
    for (std::uint32_t word = 0; word < 65536; ++word) sum += map.magnitudes[magnitude_at_random<is_signed>(map.magnitudes, x, word)];
    EXPECT_NEAR(sum / 65536 / x, 1, 1e-3) << x;
  }
}

}  // namespace

TEST(AdamW, MapOfEightBits) {
  check_map(signed_map);
  check_map(unsigned_map);
  // By hand: decade 6 of the signed map has 64 parts of 0.9 / 64; the smallest magnitude is the middle of 1e-7 to 1e-6.
  EXPECT_FLOAT_EQ(signed_map.magnitudes[64], 0.1f + 0.45f / 64);
  EXPECT_FLOAT_EQ(signed_map.magnitudes[1], 0.55e-6f);
  EXPECT_FLOAT_EQ(unsigned_map.magnitudes[254], 1 - 0.45f / 128);
  for (int magnitude = 0; magnitude < 128; ++magnitude)
    for (const bool is_negative : {false, true}) {
      const float value = signed_value(signed_map.magnitudes, signed_code(magnitude, is_negative));
      EXPECT_EQ(value, is_negative ? -signed_map.magnitudes[magnitude] : signed_map.magnitudes[magnitude]);
    }
}

// From the states as they are, a step moves the parameter as f64 says, and the states to one of their neighbours.
TEST(AdamW, NarrowStatesFollowTheFormula) {
  constexpr std::int64_t size = 1000;
  for (const Dtype states : {Dtype::bf16, Dtype::u8}) {
    Problem problem(size, Dtype::f32, states);
    problem.gradient.set(0, 3, 0);
    for (int t = 1; t <= 4; ++t) {
      const Problem before = problem;
      problem.step_on_cpu(settings);
      for (std::int64_t i = 0; i < size; ++i) {
        const double g = before.gradient.get(0, i), p = before.parameter.get(0, i);
        const double m = 0.9 * before.mean(i) + 0.1 * g, v = 0.95 * before.square(i) + 0.05 * g * g;
        const double step = 1e-2 * m / (1 - std::pow(0.9, t)) / (std::sqrt(v / (1 - std::pow(0.95, t))) + 1e-8);
        ASSERT_NEAR(problem.parameter.get(0, i), p * (1 - 1e-3) - step, 2e-6);
        ASSERT_NEAR(problem.mean(i), m, problem.room<true>(m, problem.m_scales.get(0, i / adamw_block)));
        ASSERT_NEAR(problem.square(i), v, problem.room<false>(v, problem.v_scales.get(0, i / adamw_block)));
        ASSERT_EQ(problem.square(i) > 0, v > 0);
      }
    }
    EXPECT_EQ(problem.mean(3), 0);
    EXPECT_EQ(problem.square(3), 0);
  }
}

// v goes from 1 to 1/2 by a thousandth of the distance a step: less than half a code. Rounded to the nearest it would stay at 1.
TEST(AdamW, SmallChangesAreNotLost) {
  constexpr std::int64_t size = 1 << 12;
  constexpr int steps = 700;
  const double expected = 0.5 + 0.5 * std::pow(0.999, steps);
  for (const Dtype states : {Dtype::bf16, Dtype::u8}) {
    Problem problem(size, Dtype::f32, states);
    problem.v.fill(states == Dtype::u8 ? 254 : 1), problem.v_scales.fill(1 / unsigned_map.largest());
    problem.gradient.fill(std::sqrt(0.5));
    for (std::int64_t block = 0; block < size; block += adamw_block) problem.gradient.set(0, block, 1);  // keeps the scale at 1
    for (int t = 0; t < steps; ++t) problem.step_on_cpu({0, 0.9, 0.999, 1e-8, 0, 7, 5, 0});
    double sum = 0, count = 0;
    for (std::int64_t i = 0; i < size; ++i)
      if (i % adamw_block != 0) sum += problem.square(i), count += 1;
    EXPECT_NEAR(sum / count, expected, 0.005) << name_of(states);
  }
  const float after_one = static_cast<float>(0.999 + 0.0005);
  EXPECT_GT(after_one, (1 + unsigned_map.magnitudes[253] / unsigned_map.largest()) / 2) << "nearest would move as well";
}

TEST(AdamW, NaNIsNotLostInCodes) {
  Problem problem(300, Dtype::f32, Dtype::u8);
  problem.gradient.set(0, 7, NAN);
  problem.step_on_cpu(settings);
  EXPECT_TRUE(std::isnan(problem.parameter.get(0, 7)) && std::isnan(problem.mean(7)) && std::isnan(problem.square(7)));
  EXPECT_FALSE(std::isnan(problem.mean(299)));
}

TEST(CudaAdamW, NarrowStates) {
  for (const bool reversed : orders())
    for (const std::int64_t size : {1, 5, 256, 1000, 2048 + 264})
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const Dtype states : {Dtype::bf16, Dtype::u8})
          for (const bool has_master : {false, true}) {
            if (has_master && dtype == Dtype::f32) continue;
            run_reversed(reversed);
            Problem expected(size, dtype, states), found = expected;
            for (int t = 0; t < 3; ++t) expected.step_on_cpu(settings, has_master), found.step_on_cuda(settings, has_master);
            // A result that lies within rounding of the border between two codes may fall to either side, which tells apart few.
            std::int64_t differ = 0;
            for (std::int64_t i = 0; i < size; ++i) {
              const auto is_other = [](double a, double b) { return std::abs(a - b) > 1e-4 * std::abs(b); };
              differ += is_other(found.mean(i), expected.mean(i)) || is_other(found.square(i), expected.square(i));
              ASSERT_NEAR(found.mean(i), expected.mean(i), 0.15 * std::abs(expected.mean(i)) + 1e-6);
              ASSERT_NEAR(found.square(i), expected.square(i), 0.08 * expected.square(i) + 1e-9);
            }
            EXPECT_LE(differ, states == Dtype::u8 ? size / 50 : size / 10) << name_of(dtype) << ' ' << name_of(states) << ' ' << size;
            EXPECT_CLOSE(found.parameter, expected.parameter, dtype == Dtype::bf16 ? 4e-3 : 1e-5);
            EXPECT_CLOSE(found.master, expected.master, 1e-5);
          }
}

// Parts that begin at multiples of a block have the numbers that they have in the whole, random ones too.
TEST(CudaAdamW, PartsAreThoseOfTheWhole) {
  constexpr std::int64_t size = 1000, border = 2 * adamw_block;
  for (const bool on_cuda : {false, true})
    for (const Dtype states : {Dtype::f32, Dtype::bf16, Dtype::u8}) {
      Problem whole(size, Dtype::bf16, states), begin(border, Dtype::bf16, states), end(size - border, Dtype::bf16, states);
      for (std::int64_t i = 0; i < size - border; ++i) {
        end.parameter.set(0, i, whole.parameter.get(0, border + i));
        end.gradient.set(0, i, whole.gradient.get(0, border + i));
      }
      for (std::int64_t i = 0; i < border; ++i) {
        begin.parameter.set(0, i, whole.parameter.get(0, i));
        begin.gradient.set(0, i, whole.gradient.get(0, i));
      }
      const auto step = [&](Problem& problem, std::int64_t first) {
        AdamwSettings of_part = settings;
        of_part.first = first;
        on_cuda ? problem.step_on_cuda(of_part) : problem.step_on_cpu(of_part);
      };
      for (int t = 0; t < 3; ++t) step(whole, 0), step(begin, 0), step(end, border);
      for (std::int64_t i = 0; i < size; ++i) {
        const Problem& part = i < border ? begin : end;
        const std::int64_t j = i < border ? i : i - border;
        ASSERT_EQ(part.parameter.get(0, j), whole.parameter.get(0, i)) << name_of(states) << ' ' << i;
        ASSERT_EQ(part.mean(j), whole.mean(i)) << name_of(states) << ' ' << i;
        ASSERT_EQ(part.square(j), whole.square(i)) << name_of(states) << ' ' << i;
      }
    }
}

// Magnitudes at both ends and within every decade: with betas of 0 a step makes m of g and v of g², whose codes have them as their mean.
// The bound is five deviations of the mean; rounding to the nearest misses it.
TEST(CudaAdamW, RoundingKeepsTheMeanInEveryDecade) {
  std::vector<double> roots;  // of v's magnitudes; m's are these
  for (int decade = 0; decade <= 7; ++decade)
    for (const double part : {0.9996, 1.0004, 2.3, 7.1})
      if (part * std::pow(10, -decade) < 1) roots.push_back(part * std::pow(10, -decade));
  const std::size_t magnitudes = roots.size();
  for (std::size_t i = 0; i < magnitudes; ++i) roots.push_back(std::sqrt(roots[i]));
  const std::int64_t num_blocks = static_cast<std::int64_t>(roots.size());
  constexpr int steps = 8;
  for (const bool on_cuda : {false, true}) {
    Problem problem(num_blocks * adamw_block, Dtype::f32, Dtype::u8);
    for (std::int64_t i = 0; i < num_blocks * adamw_block; ++i)
      problem.gradient.set(0, i, i % adamw_block == 0 ? 1 : roots[static_cast<std::size_t>(i / adamw_block)]);  // the first makes the scale
    std::vector<double> m_sums(roots.size()), v_sums(roots.size());
    for (int t = 0; t < steps; ++t) {
      if (on_cuda)
        problem.step_on_cuda({0, 0, 0, 1e-8, 0, 7, 5, 0});
      else
        problem.step_on_cpu({0, 0, 0, 1e-8, 0, 7, 5, 0});
      for (std::int64_t i = 0; i < num_blocks * adamw_block; ++i)
        if (i % adamw_block != 0)
          m_sums[static_cast<std::size_t>(i / adamw_block)] += problem.mean(i),
              v_sums[static_cast<std::size_t>(i / adamw_block)] += problem.square(i);
    }
    constexpr double count = steps * (adamw_block - 1);
    const auto check = [&](const auto& map, double scale, double exact, double mean) {
      const int below = [&] {
        int number = 0;
        while (number + 2 < map.size && map.magnitudes[number + 1] * scale <= exact) ++number;
        return number;
      }();
      const double from = map.magnitudes[below] * scale, gap = map.magnitudes[below + 1] * scale - from, part = (exact - from) / gap;
      EXPECT_NEAR((mean - from) / gap, part, 5 * std::sqrt(part * (1 - part) / count) + 1e-3) << exact << (on_cuda ? " CUDA" : " CPU");
    };
    for (std::size_t i = 0; i < roots.size(); ++i) {
      const double root = static_cast<float>(roots[i]);
      check(signed_map, 1 / double(signed_map.largest()), root, m_sums[i] / count);
      // A positive v never has code 0: below the smallest magnitude the mean is not kept.
      if (root * root * unsigned_map.largest() > unsigned_map.magnitudes[1])
        check(unsigned_map, 1 / double(unsigned_map.largest()), root * root, v_sums[i] / count);
      else
        EXPECT_NEAR(v_sums[i] / count * unsigned_map.largest(), unsigned_map.magnitudes[1], 1e-9);
    }
  }
}

TEST(CudaAdamW, NaNIsNotLostInCodes) {
  for (const std::int64_t size : {300, 512}) {
    Problem problem(size, Dtype::f32, Dtype::u8);
    problem.gradient.set(0, 7, NAN);
    problem.step_on_cuda(settings);
    EXPECT_TRUE(std::isnan(problem.parameter.get(0, 7)) && std::isnan(problem.mean(7)) && std::isnan(problem.square(7)));
    EXPECT_FALSE(std::isnan(problem.mean(299)));
  }
}

}  // namespace mst::test
