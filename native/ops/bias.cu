// Adds a bias to every row; see bias.h.
#include "bias.h"

#include "../cuda/common/partials.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Forward {
  Rows<T> y;
  const T* bias;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    float sum[width], added[width];
    load(y.at(n, c), sum);
    load(bias + c, added);
#pragma unroll
    for (int i = 0; i < width; ++i) sum[i] += added[i];
    store(sum, y.at(n, c));
  }
};

constexpr int block_size = 128;

// Block (x, p) sums the p-th part of the rows; each thread sums `width` columns.
template <int width, class T>
__global__ void sum_rows_kernel(Rows<const T> dy, float* partials, std::int64_t N, std::int64_t C) {
  const std::int64_t c = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width, p = blockIdx.y, P = gridDim.y;
  if (c >= C) return;
  float sums[width] = {};
#pragma unroll 8
  for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) {
    float row[width];
    load(dy.at(n, c), row);
#pragma unroll
    for (int i = 0; i < width; ++i) sums[i] += row[i];
  }
#pragma unroll
  for (int i = 0; i < width; ++i) partials[p * C + c + i] = sums[i];
}

}  // namespace

void bias_forward(Context& context, const Tensor& y, const Tensor& bias) {
  check_bias_forward(y, bias);
  with_cuda_float("bias_forward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&y, &bias}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(context, y.rows(), y.cols(), Forward<width, T>{rows_of<T>(y), bias.as<const T>()});
    });
  });
}

void bias_backward(Context& context, const Tensor& dy, const Tensor& dbias, const Tensor& partials) {
  check_bias_backward(dy, dbias, partials);
  if (dy.rows() == 0) return;
  const std::int64_t C = dy.cols(), P = partials.rows();
  with_cuda_float("bias_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&dy}), [&]<int width>(std::integral_constant<int, width>) {
      constexpr std::int64_t cols_of_block = block_size * width;
      const dim3 grid(static_cast<unsigned>((C + cols_of_block - 1) / cols_of_block), static_cast<unsigned>(P));
      launch(context, sum_rows_kernel<width, T>, grid, block_size, 0, rows_of<const T>(dy), partials.as<float>(), dy.rows(), C);
    });
  });
  add_partials(context, "bias_backward", partials, dbias);
}

}  // namespace mst::cuda
