// Rows of a table by id; see embedding.h.
#include "embedding.h"

#include "../cuda/reduce.h"
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

// An id in the upper half and a token in the lower one: no two are equal, and those of an id follow each other in the tokens' order.
using Key = unsigned long long;

__device__ inline Key key_of(std::int32_t id, std::int64_t token) {
  return Key(static_cast<std::uint32_t>(id)) << 32 | Key(token);
}
__device__ inline std::uint32_t id_of(Key key) {
  return static_cast<std::uint32_t>(key >> 32);
}
__device__ inline std::int64_t token_of(Key key) {
  return static_cast<std::int64_t>(key & 0xffffffffu);
}

// Keys are sorted in tiles by counting the smaller ones of the tile, then merged by counting those of every other tile: N²/tile · log tile
// comparisons, of which thousands of threads do few each, in two launches.
constexpr int tile = 256, counters = 4;  // threads that count for a key, each over a part of the tile
constexpr int sort_threads = tile * counters;

__global__ void __launch_bounds__(sort_threads)
    sort_tiles_kernel(const std::int32_t* ids, Key* tiles, std::int64_t N, std::int64_t V, long long* status) {
  __shared__ Key keys[tile];
  __shared__ int num_smaller[counters][tile];
  const int mine = threadIdx.x % tile, counter = threadIdx.x / tile;
  for (std::int64_t begin = std::int64_t(blockIdx.x) * tile; begin < N; begin += std::int64_t(gridDim.x) * tile) {
    const std::int64_t n = begin + mine;
    if (counter == 0) {
      const std::int32_t id = n < N ? ids[n] : -1;
      if (n < N && (id < 0 || id >= V)) note_status(status, status_embedding_backward, n, id, V);
      keys[mine] = n < N ? key_of(id, n) : ~Key(0);
    }
    __syncthreads();
    const Key key = keys[mine];
    int count = 0;
#pragma unroll 16
    for (int i = counter * (tile / counters); i < (counter + 1) * (tile / counters); ++i) count += keys[i] < key;
    num_smaller[counter][mine] = count;
    __syncthreads();
    if (counter > 0 || n >= N) continue;
#pragma unroll
    for (int i = 1; i < counters; ++i) count += num_smaller[i][mine];
    tiles[begin + count] = key;
  }
}

// Keys smaller than `key` among `size` sorted ones, at most `tile`.
__device__ inline int count_smaller(const Key* keys, int size, Key key) {
  int count = 0;
#pragma unroll
  for (int step = tile; step > 0; step /= 2)
    if (count + step <= size && keys[count + step - 1] < key) count += step;
  return count;
}

constexpr int merge_threads = 256;

// One warp a key, whose lanes look for its place in every 32nd tile.
__global__ void __launch_bounds__(merge_threads) merge_tiles_kernel(const Key* tiles, Key* sorted, std::int64_t N) {
  const int lane = threadIdx.x % 32;
  for (std::int64_t mine = grid_thread() / 32; mine < N; mine += grid_threads() / 32) {
    const Key key = tiles[mine];
    int num_smaller = 0;
    for (std::int64_t begin = std::int64_t(lane) * tile; begin < N; begin += 32 * tile)
      num_smaller += count_smaller(tiles + begin, N - begin < tile ? static_cast<int>(N - begin) : tile, key);
    num_smaller = warp_reduce<Sum>(num_smaller);
    if (lane == 0) sorted[num_smaller] = key;
  }
}

constexpr int add_threads = 256, warps_of_block = add_threads / 32;
constexpr int few = 8;  // tokens of an id that the first of the two kernels below adds, the second those of ids that have more

// One warp for every key and slab of columns, blockIdx.y; that of an id's first key adds the id's tokens, in order.
template <int width, class T, class G>
__global__ void __launch_bounds__(add_threads)
    add_few_tokens_kernel(const Key* sorted, const T* dy, G* dweight, std::int64_t N, std::int64_t C, std::int64_t V,
                          std::int64_t dy_stride, std::int64_t dweight_stride) {
  constexpr int rows_ahead = few / 2, before = 31;
  const int lane = threadIdx.x % 32;
  const std::int64_t c = (std::int64_t(blockIdx.y) * 32 + lane) * width;
  for (std::int64_t begin = grid_thread() / 32; begin < N; begin += grid_threads() / 32) {
    const std::int64_t mine = lane == before ? begin - 1 : begin + lane;
    const Key key = mine >= 0 && mine < N && (lane <= few || lane == before) ? sorted[mine] : ~Key(0);
    const std::uint32_t id = __shfl_sync(0xffffffffu, id_of(key), 0);
    const unsigned same = __ballot_sync(0xffffffffu, id_of(key) == id);
    if (id >= V || same >> before || same >> few & 1) continue;
    G* const to = dweight + id * dweight_stride + c;
    float sums[width] = {};
    if (c < C) load(to, sums);
    const int num_rows = __popc(same);
#pragma unroll
    for (int first = 0; first < few; first += rows_ahead) {
      if (first >= num_rows) break;
      Vector<T, width> rows[rows_ahead] = {};
#pragma unroll
      for (int r = 0; r < rows_ahead; ++r) {
        const std::int64_t token = __shfl_sync(0xffffffffu, token_of(key), first + r);
        if (first + r < num_rows && c < C) rows[r] = load_vector<width>(dy + token * dy_stride + c);
      }
#pragma unroll
      for (int r = 0; r < rows_ahead; ++r) {
        if (first + r >= num_rows) break;
#pragma unroll
        for (int i = 0; i < width; ++i) sums[i] += rows[r].at(i);
      }
    }
    if (c < C) store(sums, to);
  }
}

// One warp for every 32 keys and slab of columns: it adds the tokens of each id that has more than a few and whose first key is among them.
template <int width, class T, class G>
__global__ void __launch_bounds__(add_threads)
    add_many_tokens_kernel(const Key* sorted, const T* dy, G* dweight, std::int64_t N, std::int64_t C, std::int64_t V,
                           std::int64_t dy_stride, std::int64_t dweight_stride) {
  const int lane = threadIdx.x % 32;
  const std::int64_t c = (std::int64_t(blockIdx.y) * 32 + lane) * width;
  const T* const column = dy + (c < C ? c : 0);  // lanes beyond the last column add what nobody stores
  const auto key_at = [&](std::int64_t i) { return i >= 0 && i < N ? sorted[i] : ~Key(0); };
  for (std::int64_t group = grid_thread() / 32 * 32; group < N; group += grid_threads()) {
    const std::int64_t i = group + lane;
    const std::uint32_t id = id_of(key_at(i));
    const bool is_first = i == 0 || id_of(key_at(i - 1)) != id;
    unsigned firsts = __ballot_sync(0xffffffffu, id < V && is_first && id_of(key_at(i + few)) == id);
    for (; firsts != 0; firsts &= firsts - 1) {
      const int first = __ffs(static_cast<int>(firsts)) - 1;
      const std::uint32_t common = __shfl_sync(0xffffffffu, id, first);
      G* const to = dweight + common * dweight_stride + c;
      float sums[width] = {};
      if (c < C) load(to, sums);
      Key key = key_at(group + first + lane);
      for (std::int64_t next = group + first + 32;; next += 32) {
        const int num_rows = __popc(__ballot_sync(0xffffffffu, id_of(key) == common));
        const std::int64_t of_lane = token_of(key) * dy_stride;
        Vector<T, width> rows[32] = {};
#pragma unroll
        for (int r = 0; r < 32; ++r) {
          const T* const row = column + __shfl_sync(0xffffffffu, of_lane, r);
          if (r < num_rows) rows[r] = load_vector<width>(row);
        }
        key = key_at(next + lane);
#pragma unroll
        for (int r = 0; r < 32; ++r) {
          if (r >= num_rows) break;
#pragma unroll
          for (int i = 0; i < width; ++i) sums[i] += rows[r].at(i);
        }
        if (num_rows < 32) break;
      }
      if (c < C) store(sums, to);
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

void embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight, const Workspace& workspace) {
  const std::int64_t N = ids.size(), C = dweight.cols();
  const std::size_t needed = 2 * sizeof(Key) * static_cast<std::size_t>(N);
  MST_CHECK(workspace.bytes >= needed, "embedding_backward: workspace of ", workspace.bytes, " bytes, needs ", needed);
  if (N == 0) return;
  Key* const sorted = static_cast<Key*>(workspace.data);
  Key* const tiles = sorted + N;
  launch(sort_tiles_kernel, grid_for(N, tile), sort_threads, 0, ids.as<const std::int32_t>(), tiles, N, dweight.rows(), status_words());
  launch(merge_tiles_kernel, grid_for(N * 32, merge_threads), merge_threads, 0, tiles, sorted, N);
  with_cuda_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_cuda_float("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const auto run = [&](auto kernel, int width, int keys_of_warp) {
        const dim3 grid(grid_for(N, keys_of_warp * warps_of_block, 1 << 20), static_cast<unsigned>((C + 32 * width - 1) / (32 * width)));
        launch(kernel, grid, add_threads, 0, sorted, dy.as<const T>(), dweight.as<G>(), N, C, dweight.rows(), dy.row_stride,
               dweight.row_stride);
      };
      constexpr int wide = vector_width<T>, narrow = wide / 4;  // 16 bytes a lane where few rows are added, 4 where many are
      if (is_vectorizable({&dy, &dweight})) {
        run(add_few_tokens_kernel<wide, T, G>, wide, 1);
        run(add_many_tokens_kernel<narrow, T, G>, narrow, 32);
      } else {
        run(add_few_tokens_kernel<1, T, G>, 1, 1);
        run(add_many_tokens_kernel<1, T, G>, 1, 32);
      }
    });
  });
}

}  // namespace mst::cuda
