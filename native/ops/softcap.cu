// Soft-capping of scores; see softcap.h.
#include "softcap.h"

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 256;

template <class T>
__global__ void softcap_forward_kernel(const T* x, T* y, std::int64_t N, std::int64_t C, std::int64_t x_stride, std::int64_t y_stride,
                                       float cap) {
  for (std::int64_t i = grid_thread(); i < N * C; i += grid_threads()) {
    const std::int64_t n = i / C, c = i % C;
    y[n * y_stride + c] = from_float<T>(cap * tanhf(to_float(x[n * x_stride + c]) / cap));
  }
}

template <class T>
__global__ void softcap_backward_kernel(const T* dy, const T* y, T* dx, std::int64_t N, std::int64_t C, std::int64_t dy_stride,
                                        std::int64_t y_stride, std::int64_t dx_stride, float cap) {
  for (std::int64_t i = grid_thread(); i < N * C; i += grid_threads()) {
    const std::int64_t n = i / C, c = i % C;
    const float tanh = to_float(y[n * y_stride + c]) / cap;
    dx[n * dx_stride + c] = from_float<T>(to_float(dy[n * dy_stride + c]) * (1.0f - tanh * tanh));
  }
}

}  // namespace

void softcap_forward(const Tensor& x, const Tensor& y, double cap) {
  MST_CHECK(x.rows() == y.rows() && x.cols() == y.cols(), "softcap_forward: ", x, " and ", y, " differ in shape");
  if (x.size() == 0) return;
  with_cuda_float("softcap_forward", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(softcap_forward_kernel<T>, grid_for(x.size(), block_size), block_size, 0, x.as<const T>(), y.as<T>(), x.rows(), x.cols(),
           x.row_stride, y.row_stride, float(cap));
  });
}

void softcap_backward(const Tensor& dy, const Tensor& y, const Tensor& dx, double cap) {
  MST_CHECK(dy.rows() == y.rows() && dy.cols() == y.cols(), "softcap_backward: ", dy, " and ", y, " differ in shape");
  if (y.size() == 0) return;
  with_cuda_float("softcap_backward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(softcap_backward_kernel<T>, grid_for(y.size(), block_size), block_size, 0, dy.as<const T>(), y.as<const T>(), dx.as<T>(),
           y.rows(), y.cols(), dy.row_stride, y.row_stride, dx.row_stride, float(cap));
  });
}

}  // namespace mst::cuda
