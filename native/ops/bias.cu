// A row added to every row; see bias.h.
#include "bias.h"

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 256;

template <class T>
__global__ void bias_forward_kernel(T* y, const T* bias, std::int64_t N, std::int64_t C, std::int64_t y_stride) {
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x)
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      y[n * y_stride + c] = from_float<T>(to_float(y[n * y_stride + c]) + to_float(bias[c]));
}

// Block (x, p) sums the p-th part of the rows, a thread one column.
template <class T>
__global__ void sum_rows_kernel(const T* dy, float* partials, std::int64_t N, std::int64_t C, std::int64_t dy_stride) {
  const std::int64_t c = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x, p = blockIdx.y, P = gridDim.y;
  if (c >= C) return;
  float sum = 0;
  for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) sum += to_float(dy[n * dy_stride + c]);
  partials[p * C + c] = sum;
}

// dbias (C,) += Σ partials (P,C), one thread a column.
template <class G>
__global__ void add_partials_kernel(const float* partials, G* dbias, std::int64_t P, std::int64_t C) {
  for (std::int64_t c = grid_thread(); c < C; c += grid_threads()) {
    float sum = 0;
    for (std::int64_t p = 0; p < P; ++p) sum += partials[p * C + c];
    dbias[c] = from_float<G>(to_float(dbias[c]) + sum);
  }
}

}  // namespace

void bias_forward(const Tensor& y, const Tensor& bias) {
  MST_CHECK(bias.size() == y.cols() && bias.dtype == y.dtype, "bias_forward: bias ", bias, " is no row of y ", y);
  if (y.rows() == 0) return;
  with_cuda_float("bias_forward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(bias_forward_kernel<T>, grid_for(y.rows(), 1, 65535), block_size, 0, y.as<T>(), bias.as<const T>(), y.rows(), y.cols(),
           y.row_stride);
  });
}

void bias_backward(const Tensor& dy, const Tensor& dbias, const Tensor& partials) {
  MST_CHECK(dbias.size() == dy.cols() && partials.cols() == dy.cols(), "bias_backward: dbias ", dbias, " or partials ", partials,
            " do not have the columns of dy ", dy);
  if (dy.rows() == 0) return;
  const std::int64_t C = dy.cols(), P = partials.rows();
  with_cuda_float("bias_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const dim3 grid(static_cast<unsigned>((C + block_size - 1) / block_size), static_cast<unsigned>(P));
    launch(sum_rows_kernel<T>, grid, block_size, 0, dy.as<const T>(), partials.as<float>(), dy.rows(), C, dy.row_stride);
  });
  with_cuda_float("bias_backward", dbias.dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    launch(add_partials_kernel<G>, grid_for(C, block_size), block_size, 0, partials.as<const float>(), dbias.as<G>(), P, C);
  });
}

}  // namespace mst::cuda
