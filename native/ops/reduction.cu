// Sums in a fixed order; see reduction.h.
#include "reduction.h"

#include "../cuda/reduce.h"

namespace mst::cuda {
namespace {

// Block p sums the p-th part of x.
template <class T>
__global__ void sum_of_squares_kernel(const T* x, double* partials, std::int64_t size) {
  const std::int64_t p = blockIdx.x, P = gridDim.x;
  const std::int64_t begin = size * p / P, end = size * (p + 1) / P;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const double value = to_float(x[i]);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[p] = sum;
}

__global__ void sum_partials_kernel(const double* partials, float* sum, std::int64_t P) {
  double total = 0;
  for (std::int64_t p = 0; p < P; ++p) total += partials[p];
  *sum = static_cast<float>(total);
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

void sum_of_squares(const Tensor& x, const Tensor& sum, const Tensor& partials) {
  MST_CHECK(x.is_contiguous(), "sum_of_squares: x must be contiguous, rows of ", x.cols(), " are ", x.row_stride, " apart");
  with_cuda_float("sum_of_squares", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(sum_of_squares_kernel<T>, static_cast<unsigned>(partials.size()), 512, 0, x.as<const T>(), partials.as<double>(), x.size());
  });
  launch(sum_partials_kernel, 1, 1, 0, partials.as<const double>(), sum.as<float>(), partials.size());
}

void clip_factor(const Tensor& sums, const Tensor& norm, const Tensor& factor, double max_norm) {
  launch(clip_factor_kernel, 1, 1, 0, sums.as<const float>(), norm.as<float>(), factor.as<float>(), sums.size(), max_norm);
}

}  // namespace mst::cuda
