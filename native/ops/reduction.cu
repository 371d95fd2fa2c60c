// Sums in a fixed order; see reduction.h.
#include "reduction.h"

#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 1024;

// Block p sums the p-th part of x. The last block also sums what is left after the last vector.
template <int width, class T>
__global__ void sum_of_squares_kernel(const T* x, double* partials, std::int64_t size) {
  const std::int64_t p = blockIdx.x, P = gridDim.x, num_vectors = size / width;
  const std::int64_t begin = num_vectors * p / P * width, end = p == P - 1 ? size : num_vectors * (p + 1) / P * width;
  double sum = 0;
  for_each_of_row<width, 4>(x + begin, end - begin, [&]<int n>(std::int64_t, const Vector<T, n>& vector) {
#pragma unroll
    for (int i = 0; i < n; ++i) sum += double(vector.at(i)) * double(vector.at(i));
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[p] = sum;
}

// One block; thread sums are added in a fixed order.
__global__ void sum_partials_kernel(const double* partials, float* sum, std::int64_t P) {
  double total = 0;
  for (std::int64_t p = threadIdx.x; p < P; p += blockDim.x) total += partials[p];
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = static_cast<float>(total);
}

__global__ void clip_factor_kernel(const float* sums, float* norm, float* factor, std::int64_t num_sums, double max_norm) {
  double total = 0;
  for (std::int64_t i = 0; i < num_sums; ++i) total += sums[i];
  const double root = sqrt(total);
  *norm = static_cast<float>(root);
  const double ratio = max_norm > 0 ? max_norm / (root + 1e-6) : 1.0;
  const bool is_finite = root - root == 0;
  *factor = is_finite ? static_cast<float>(ratio < 1.0 ? ratio : 1.0) : NAN;
}

}  // namespace

void sum_of_squares(Context& context, const Tensor& x, const Tensor& sum, const Tensor& partials) {
  check_sum_of_squares(x, sum, partials);
  with_cuda_float("sum_of_squares", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr std::int64_t width = vector_width<T>;
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0;
    launch(context, is_aligned ? sum_of_squares_kernel<width, T> : sum_of_squares_kernel<1, T>, static_cast<unsigned>(partials.size()),
           block_size, 0, x.as<const T>(), partials.as<double>(), x.size());
  });
  launch(context, sum_partials_kernel, 1, 256, 0, partials.as<const double>(), sum.as<float>(), partials.size());
}

void clip_factor(Context& context, const Tensor& sums, const Tensor& norm, const Tensor& factor, double max_norm) {
  check_clip_factor(sums, norm, factor);
  launch(context, clip_factor_kernel, 1, 1, 0, sums.as<const float>(), norm.as<float>(), factor.as<float>(), sums.size(), max_norm);
}

}  // namespace mst::cuda
