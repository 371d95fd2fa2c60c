// Counter-based normal numbers; see random_normal.h.
#include "random_normal.h"

#include <algorithm>
#include <cmath>

#include "../cpu/parallel.h"
#include "../philox.h"

namespace mst::cpu {
namespace {

// Makes two normal numbers from two uniform words (Box and Muller 1958).
void normal_pair(std::uint32_t word1, std::uint32_t word2, double (&pair)[2]) {
  constexpr double two_pi = 6.283185307179586, scale = 1.0 / 4294967296.0;
  const double u1 = (word1 + 0.5) * scale, u2 = (word2 + 0.5) * scale;
  const double r = std::sqrt(-2 * std::log(u1));
  pair[0] = r * std::cos(two_pi * u2);
  pair[1] = r * std::sin(two_pi * u2);
}

}  // namespace

void random_normal(Context&, const Tensor& y, double mean, double standard_deviation, std::int64_t seed, std::int64_t op,
                   std::int64_t step) {
  check_random_normal(y);
  const std::int64_t size = y.size();
  with_float("random_normal", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for((size + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) {
        const Philox random = philox({{static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(j >> 32), static_cast<std::uint32_t>(op),
                                       static_cast<std::uint32_t>(step)}},
                                     static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
        double normals[2][2];
        normal_pair(random.words[0], random.words[1], normals[0]);
        normal_pair(random.words[2], random.words[3], normals[1]);
        for (std::int64_t i = 4 * j; i < std::min(4 * j + 4, size); ++i)
          y.as<T>()[i] = T(compute_t<T>(mean + standard_deviation * normals[(i - 4 * j) / 2][i % 2]));
      }
    });
  });
}

}  // namespace mst::cpu
