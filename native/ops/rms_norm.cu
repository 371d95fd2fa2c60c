// Root mean square normalisation; see rms_norm.h.
#include "rms_norm.h"

#include "../cuda/reduce.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 256;
constexpr std::int64_t blocks_without_partials = 132 * 8;

template <class T>
__device__ float inverse_norm(const T* x, std::int64_t C, float eps) {
  float squares = 0;
  for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) squares += to_float(x[c]) * to_float(x[c]);
  return rsqrtf(block_sum(squares) / static_cast<float>(C) + eps);
}

// One block a row.
template <class T, class W>
__global__ void rms_norm_forward_kernel(const T* x, const W* weight, T* y, std::int64_t N, std::int64_t C, std::int64_t x_stride,
                                        std::int64_t y_stride, float eps, float weight_offset) {
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const T* const row = x + n * x_stride;
    const float r = inverse_norm(row, C, eps);
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      y[n * y_stride + c] = from_float<T>(to_float(row[c]) * r * (to_float(weight[c]) + weight_offset));
  }
}

// Block p goes through the p-th part of the rows. A thread owns columns of partials (P,C), so that nothing is shared.
template <class T, class W>
__global__ void rms_norm_backward_kernel(const T* dy, const T* x, const W* weight, T* dx, float* partials, std::int64_t N, std::int64_t C,
                                         std::int64_t dy_stride, std::int64_t x_stride, std::int64_t dx_stride, float eps,
                                         float weight_offset) {
  const std::int64_t p = blockIdx.x, P = gridDim.x;
  float* const sums = partials ? partials + p * C : nullptr;
  if (sums)
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) sums[c] = 0;
  for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) {
    const T* const x_row = x + n * x_stride;
    const T* const dy_row = dy + n * dy_stride;
    const float r = inverse_norm(x_row, C, eps);
    float dot = 0;
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      dot += to_float(dy_row[c]) * (to_float(weight[c]) + weight_offset) * to_float(x_row[c]);
    const float factor = r * r * block_sum(dot) / static_cast<float>(C);
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) {
      const float d = to_float(dy_row[c]), value = to_float(x_row[c]);
      if (sums) sums[c] += d * value * r;
      dx[n * dx_stride + c] = from_float<T>(r * (d * (to_float(weight[c]) + weight_offset) - factor * value));
    }
  }
}

// dweight (C,) += Σ partials (P,C), one thread a column.
template <class G>
__global__ void add_partials_kernel(const float* partials, G* dweight, std::int64_t P, std::int64_t C) {
  for (std::int64_t c = grid_thread(); c < C; c += grid_threads()) {
    float sum = 0;
    for (std::int64_t p = 0; p < P; ++p) sum += partials[p * C + c];
    dweight[c] = from_float<G>(to_float(dweight[c]) + sum);
  }
}

template <class Function>
void with_types(const char* op, const Tensor& x, const Tensor& weight, const Function& function) {
  MST_CHECK(weight.size() == x.cols(), op, ": weight ", weight, " does not have the columns of x ", x);
  with_cuda_float(op, x.dtype, [&](auto x_tag) {
    if (weight.dtype == x.dtype) return function(x_tag, x_tag);
    MST_CHECK(weight.dtype == Dtype::f32, op, ": weight ", weight, " has neither x's dtype nor float32");
    function(x_tag, type_tag<float>{});
  });
}

}  // namespace

void rms_norm_forward(const Tensor& x, const Tensor& weight, const Tensor& y, double eps, double weight_offset) {
  if (x.rows() == 0) return;
  with_types("rms_norm_forward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    launch(rms_norm_forward_kernel<T, W>, grid_for(x.rows(), 1, 65535), block_size, 0, x.as<const T>(), weight.as<const W>(), y.as<T>(),
           x.rows(), x.cols(), x.row_stride, y.row_stride, float(eps), float(weight_offset));
  });
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
                       const OptionalTensor& partials, double eps, double weight_offset) {
  MST_CHECK(dweight.has_value() == partials.has_value(), "rms_norm_backward: dweight and partials come together");
  if (x.rows() == 0) return;
  with_types("rms_norm_backward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    const unsigned grid = partials ? static_cast<unsigned>(partials->rows()) : grid_for(x.rows(), 1, blocks_without_partials);
    launch(rms_norm_backward_kernel<T, W>, grid, block_size, 0, dy.as<const T>(), x.as<const T>(), weight.as<const W>(), dx.as<T>(),
           partials ? partials->as<float>() : nullptr, x.rows(), x.cols(), dy.row_stride, x.row_stride, dx.row_stride, float(eps),
           float(weight_offset));
  });
  if (!dweight) return;
  with_cuda_float("rms_norm_backward", dweight->dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    launch(add_partials_kernel<G>, grid_for(x.cols(), 128), 128, 0, partials->as<const float>(), dweight->as<G>(), partials->rows(),
           x.cols());
  });
}

}  // namespace mst::cuda
