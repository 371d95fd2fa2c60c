// Rows of a table by id; see embedding.h.
#include "embedding.h"

#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Forward {
  const T* weight;
  const std::int32_t* ids;
  T* y;
  std::int64_t V, weight_stride, y_stride;
  long long* status;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    const std::int32_t id = ids[n];
    if (id >= 0 && id < V)
      *reinterpret_cast<Vector<T, width>*>(y + n * y_stride + c) = load_vector<width>(weight + id * weight_stride + c);
    else if (c == 0)
      note_status(status, status_embedding_forward, n, id, V);
  }
};

constexpr int backward_threads = 256, held = 2;  // vectors of a row of dweight that a thread adds to at once

// One block a token, of which only the first with its id works: it adds all tokens of that id in order. No atomics on floats, and no
// memory beside the gradient, at the price of reading the ids N times, which the cache serves.
template <int width, class T, class G>
__global__ void __launch_bounds__(backward_threads)
    embedding_backward_kernel(const T* dy, const std::int32_t* ids, G* dweight, std::int64_t N, std::int64_t C, std::int64_t V,
                              std::int64_t dy_stride, std::int64_t dweight_stride, long long* status) {
  constexpr int num_warps = backward_threads / 32;
  __shared__ int is_repeated;
  __shared__ unsigned found[num_warps];  // of the tokens that a warp has looked at, those of the id
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const std::int32_t id = ids[n];
    if (threadIdx.x == 0) is_repeated = 0;
    __syncthreads();
    for (std::int64_t earlier = threadIdx.x; earlier < n; earlier += backward_threads)
      if (ids[earlier] == id) is_repeated = 1;  // all write the same
    __syncthreads();
    const bool skips = is_repeated || id < 0 || id >= V;
    __syncthreads();  // is_repeated is reset in the next round
    if (id < 0 || id >= V) {
      if (threadIdx.x == 0) note_status(status, status_embedding_backward, n, id, V);
    }
    if (skips) continue;
    G* const to = dweight + id * dweight_stride;
    for (std::int64_t first = 0; first < C; first += held * backward_threads * width) {
      const auto column = [&](int j) { return first + std::int64_t(j * backward_threads + static_cast<int>(threadIdx.x)) * width; };
      float sums[held][width];
#pragma unroll
      for (int j = 0; j < held; ++j)
        if (column(j) < C) load(to + column(j), sums[j]);
      for (std::int64_t begin = n; begin < N; begin += backward_threads) {
        const std::int64_t m = begin + threadIdx.x;
        const unsigned of_warp = __ballot_sync(0xffffffffu, m < N && ids[m] == id);
        if (lane == 0) found[warp] = of_warp;
        __syncthreads();
        for (int w = 0; w < num_warps; ++w)
          for (unsigned left = found[w]; left != 0; left &= left - 1) {
            const T* const row = dy + (begin + 32 * w + __ffs(static_cast<int>(left)) - 1) * dy_stride;
#pragma unroll
            for (int j = 0; j < held; ++j) {
              if (column(j) >= C) break;
              float added[width];
              load(row + column(j), added);
#pragma unroll
              for (int i = 0; i < width; ++i) sums[j][i] += added[i];
            }
          }
        __syncthreads();  // found is written again in the next round
      }
#pragma unroll
      for (int j = 0; j < held; ++j)
        if (column(j) < C) store(sums[j], to + column(j));
    }
  }
}

}  // namespace

void embedding_forward(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  const std::int64_t N = ids.size();
  if (N == 0) return;
  with_cuda_float("embedding_forward", weight.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto run = [&](auto width_tag) {
      constexpr int width = decltype(width_tag)::value;
      for_each_vector<width>(N, weight.cols(),
                             Forward<width, T>{weight.as<const T>(), ids.as<const std::int32_t>(), y.as<T>(), weight.rows(),
                                               weight.row_stride, y.row_stride, status_words()});
    };
    if (is_vectorizable({&weight, &y}))
      run(std::integral_constant<int, vector_width<T>>{});
    else
      run(std::integral_constant<int, 1>{});
  });
}

void embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight) {
  const std::int64_t N = ids.size();
  if (N == 0) return;
  with_cuda_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_cuda_float("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const auto kernel =
          is_vectorizable({&dy, &dweight}) ? embedding_backward_kernel<vector_width<T>, T, G> : embedding_backward_kernel<1, T, G>;
      launch(kernel, grid_for(N, 1, 65535), backward_threads, 0, dy.as<const T>(), ids.as<const std::int32_t>(), dweight.as<G>(), N,
             dweight.cols(), dweight.rows(), dy.row_stride, dweight.row_stride, status_words());
    });
  });
}

}  // namespace mst::cuda
