// Rows of a table by id; see embedding.h.
#include "embedding.h"

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

// One block a token.
template <class T>
__global__ void embedding_forward_kernel(const T* weight, const std::int32_t* ids, T* y, std::int64_t N, std::int64_t C, std::int64_t V,
                                         std::int64_t weight_stride, std::int64_t y_stride, long long* status) {
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const std::int32_t id = ids[n];
    if (id < 0 || id >= V) {
      if (threadIdx.x == 0) note_status(status, status_embedding_forward, n, id, V);
      continue;
    }
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) y[n * y_stride + c] = weight[id * weight_stride + c];
  }
}

// One block a token, of which only the first with its id works: it adds all tokens of that id in order. No atomics on floats, and no
// memory beside the gradient, at the price of reading the ids N times, which the cache serves.
template <class T, class G>
__global__ void embedding_backward_kernel(const T* dy, const std::int32_t* ids, G* dweight, std::int64_t N, std::int64_t C, std::int64_t V,
                                          std::int64_t dy_stride, std::int64_t dweight_stride, long long* status) {
  __shared__ int is_repeated;
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const std::int32_t id = ids[n];
    if (threadIdx.x == 0) is_repeated = 0;
    __syncthreads();
    for (std::int64_t earlier = threadIdx.x; earlier < n; earlier += blockDim.x)
      if (ids[earlier] == id) is_repeated = 1;  // all write the same
    __syncthreads();
    const bool skips = is_repeated || id < 0 || id >= V;
    __syncthreads();  // is_repeated is reset in the next round
    if (id < 0 || id >= V) {
      if (threadIdx.x == 0) note_status(status, status_embedding_backward, n, id, V);
    }
    if (skips) continue;
    G* const to = dweight + id * dweight_stride;
    for (std::int64_t c0 = 0; c0 < C; c0 += blockDim.x) {
      const std::int64_t c = c0 + threadIdx.x;
      if (c >= C) break;
      float sum = to_float(to[c]);
      for (std::int64_t m = n; m < N; ++m)
        if (ids[m] == id) sum += to_float(dy[m * dy_stride + c]);
      to[c] = from_float<G>(sum);
    }
  }
}

}  // namespace

void embedding_forward(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  const std::int64_t N = ids.size();
  if (N == 0) return;
  with_cuda_float("embedding_forward", weight.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(embedding_forward_kernel<T>, grid_for(N, 1, 65535), 256, 0, weight.as<const T>(), ids.as<const std::int32_t>(), y.as<T>(), N,
           weight.cols(), weight.rows(), weight.row_stride, y.row_stride, status_words());
  });
}

void embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight) {
  const std::int64_t N = ids.size();
  if (N == 0) return;
  with_cuda_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_cuda_float("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      launch(embedding_backward_kernel<T, G>, grid_for(N, 1, 65535), 256, 0, dy.as<const T>(), ids.as<const std::int32_t>(),
             dweight.as<G>(), N, dweight.cols(), dweight.rows(), dy.row_stride, dweight.row_stride, status_words());
    });
  });
}

}  // namespace mst::cuda
