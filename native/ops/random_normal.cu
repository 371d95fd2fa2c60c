// Counter-based normal numbers, equal to the CPU's up to rounding; see random_normal.h.
#include "random_normal.h"

#include "../cuda/common/launch.h"
#include "../philox.h"

namespace mst::cuda {
namespace {

// One thread for four numbers.
template <class T>
__global__ void random_normal_kernel(T* y, std::int64_t size, float mean, float standard_deviation, std::uint32_t key0, std::uint32_t key1,
                                     std::uint32_t op, std::uint32_t step) {
  constexpr double two_pi = 6.283185307179586, scale = 1.0 / 4294967296.0;
  for (std::int64_t j = grid_thread(); 4 * j < size; j += grid_threads()) {
    const Philox random = philox({{static_cast<std::uint32_t>(j), static_cast<std::uint32_t>(j >> 32), op, step}}, key0, key1);
    for (int pair = 0; pair < 2; ++pair) {
      const double u1 = (random.words[2 * pair] + 0.5) * scale, u2 = (random.words[2 * pair + 1] + 0.5) * scale;
      const double r = sqrt(-2 * log(u1));
      const double normals[2] = {r * cos(two_pi * u2), r * sin(two_pi * u2)};
      for (int i = 0; i < 2; ++i) {
        const std::int64_t index = 4 * j + 2 * pair + i;
        if (index < size) y[index] = from_float<T>(static_cast<float>(mean + standard_deviation * normals[i]));
      }
    }
  }
}

}  // namespace

void random_normal(Context& context, const Tensor& y, double mean, double standard_deviation, std::int64_t seed, std::int64_t op,
                   std::int64_t step) {
  check_random_normal(y);
  if (y.size() == 0) return;
  with_cuda_float("random_normal", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, random_normal_kernel<T>, grid_for(y.size(), 1024), 256, 0, y.as<T>(), y.size(), float(mean), float(standard_deviation),
           static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), static_cast<std::uint32_t>(op),
           static_cast<std::uint32_t>(step));
  });
}

}  // namespace mst::cuda
