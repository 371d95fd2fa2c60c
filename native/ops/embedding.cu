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
      store_vector(load_vector<width>(weight + id * weight_stride + c), y + n * y_stride + c);
    else if (c == 0)
      note_status(status, status_embedding_forward, n, id, V);
  }
};

constexpr int backward_threads = 256, num_warps = backward_threads / 32;
constexpr int ids_of_thread = 4, ids_of_round = ids_of_thread * backward_threads;  // looked at together
constexpr int held = 2;        // vectors of a row of dweight that a thread adds to at once
constexpr int rows_ahead = 2;  // rows of dy on their way at once

// Tokens begin, … of the next ids_of_round that have an id: where they are, in order, into `found`; returns how many. All threads call it.
__device__ inline int find_tokens(const std::int32_t* ids, std::int64_t begin, std::int64_t N, std::int32_t id, int* found) {
  __shared__ int of_warps[num_warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = static_cast<int>(threadIdx.x) * ids_of_thread;
  bool has[ids_of_thread];
  int count = 0;
#pragma unroll
  for (int i = 0; i < ids_of_thread; ++i) {
    has[i] = begin + first + i < N && ids[begin + first + i] == id;
    count += has[i];
  }
  int up_to = count;  // of this and the lower lanes
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int lower = __shfl_sync(0xffffffffu, up_to, lane >= offset ? lane - offset : lane);
    if (lane >= offset) up_to += lower;
  }
  __syncthreads();  // what was found before has been used
  if (lane == 31) of_warps[warp] = up_to;
  __syncthreads();
  int at = up_to - count, total = 0;
#pragma unroll
  for (int w = 0; w < num_warps; ++w) {
    if (w < warp) at += of_warps[w];
    total += of_warps[w];
  }
#pragma unroll
  for (int i = 0; i < ids_of_thread; ++i)
    if (has[i]) found[at++] = first + i;
  __syncthreads();
  return total;
}

// One block a token, of which only the first with its id works: it adds all tokens of that id in order. No atomics on floats, and no
// memory beside the gradient, at the price of reading the ids N times, which the cache serves.
template <int width, class T, class G>
__global__ void __launch_bounds__(backward_threads, 4)
    embedding_backward_kernel(const T* dy, const std::int32_t* ids, G* dweight, std::int64_t N, std::int64_t C, std::int64_t V,
                              std::int64_t dy_stride, std::int64_t dweight_stride, long long* status) {
  __shared__ int is_repeated, found[ids_of_round];
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const std::int32_t id = ids[n];
    if (threadIdx.x == 0) is_repeated = 0;
    __syncthreads();
    bool has_come = false;
#pragma unroll 8
    for (std::int64_t earlier = threadIdx.x; earlier < n; earlier += backward_threads) has_come |= ids[earlier] == id;
    if (has_come) is_repeated = 1;  // all write the same
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
      for (std::int64_t begin = n; begin < N; begin += ids_of_round) {
        const int num_found = find_tokens(ids, begin, N, id, found);
        for (int k = 0; k < num_found; k += rows_ahead) {
          Vector<T, width> rows[rows_ahead][held] = {};
#pragma unroll
          for (int r = 0; r < rows_ahead; ++r)
#pragma unroll
            for (int j = 0; j < held; ++j)
              if (k + r < num_found && column(j) < C) rows[r][j] = load_vector<width>(dy + (begin + found[k + r]) * dy_stride + column(j));
#pragma unroll
          for (int r = 0; r < rows_ahead; ++r)
#pragma unroll
            for (int j = 0; j < held; ++j) {
              if (k + r >= num_found || column(j) >= C) continue;
              float added[width];
              to_floats(rows[r][j], added);
#pragma unroll
              for (int i = 0; i < width; ++i) sums[j][i] += added[i];
            }
        }
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
