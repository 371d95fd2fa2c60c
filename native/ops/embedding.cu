// Looks up rows of a table by id; see embedding.h.
#include "embedding.h"

#include <limits>

#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Forward {
  Rows<const T> weight;
  const std::int32_t* ids;
  Rows<T> y;
  std::int64_t V;
  long long* status;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    const std::int32_t id = ids[n];
    if (id >= 0 && id < V)
      store_vector(load_vector<width>(weight.at(id, c)), y.at(n, c));
    else if (c == 0)
      note_status(status, status_embedding_forward, n, id, V);
  }
};

// An id in the upper half and a token in the lower one. All keys differ, and those of an id are in the order of its tokens.
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

// Sorting: each tile of keys is sorted by counting the smaller keys in the tile; the tiles are merged by counting those in every other
// tile. That is N²/tile · log tile comparisons in two launches, shared by thousands of threads. CUB's sort would need scratch memory whose
// size only a GPU can tell.
constexpr int tile = 256, counters = 4;  // counters: threads that count for one key, each over a part of the tile
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

// How many of `size` sorted keys, at most `tile`, are smaller than `key`.
__device__ inline int count_smaller(const Key* keys, int size, Key key) {
  int count = 0;
#pragma unroll
  for (int step = tile; step > 0; step /= 2)
    if (count + step <= size && keys[count + step - 1] < key) count += step;
  return count;
}

constexpr int merge_threads = 256;

// One warp per key. Its lanes find the key's place in every 32nd tile.
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

// A run is the keys of one id. Runs of at most this many keys are added by add_short_run(), longer ones by add_long_runs().
constexpr int max_short_run = 8;

template <class T, class G>
struct Backward {
  const Key* sorted;
  const T* dy;
  G* dweight;
  std::int64_t N, C, V, dy_stride, dweight_stride;

  __device__ Key key_at(std::int64_t i) const {
    return i >= 0 && i < N ? sorted[i] : ~Key(0);
  }

  // If a short run begins at key `begin`, a warp adds its tokens, in order, to columns c on, `width` of them per lane.
  template <int width>
  __device__ void add_short_run(std::int64_t begin, std::int64_t c) const {
    constexpr int before = 31;
    const int lane = threadIdx.x % 32;
    const Key key = lane == before ? key_at(begin - 1) : lane <= max_short_run ? key_at(begin + lane) : ~Key(0);
    const std::uint32_t id = __shfl_sync(0xffffffffu, id_of(key), 0);
    const unsigned same = __ballot_sync(0xffffffffu, id_of(key) == id);
    if (id >= V || same >> before || same >> max_short_run & 1) return;
    float sums[width] = {};
    load_sums(sums, id, c);
    add_rows<max_short_run, max_short_run / 2>(sums, key, __popc(same), c);
    store_sums(sums, id, c);
  }

  // The same for each long run that begins at one of the 32 keys from `begin` on.
  template <int width>
  __device__ void add_long_runs(std::int64_t begin, std::int64_t c) const {
    const int lane = threadIdx.x % 32;
    const std::uint32_t id = id_of(key_at(begin + lane));
    const bool is_first = begin + lane == 0 || id_of(key_at(begin + lane - 1)) != id;
    unsigned firsts = __ballot_sync(0xffffffffu, id < V && is_first && id_of(key_at(begin + lane + max_short_run)) == id);
    for (; firsts != 0; firsts &= firsts - 1) {
      const int first = __ffs(static_cast<int>(firsts)) - 1;
      add_long_run<width>(__shfl_sync(0xffffffffu, id, first), begin + first, c);
    }
  }

  template <int width>
  __device__ void add_long_run(std::uint32_t id, std::int64_t begin, std::int64_t c) const {
    const int lane = threadIdx.x % 32;
    float sums[width] = {};
    load_sums(sums, id, c);
    Key next = key_at(begin + lane);
    for (int num_rows = 32; num_rows == 32;) {
      const Key key = next;
      begin += 32;
      next = key_at(begin + lane);
      num_rows = __popc(__ballot_sync(0xffffffffu, id_of(key) == id));
      add_rows<32, 16>(sums, key, num_rows, c);
    }
    store_sums(sums, id, c);
  }

  // Adds the rows of dy for the keys of the first num_rows lanes, at most `most` of them. rows_ahead rows are loaded at once.
  template <int most, int rows_ahead, int width>
  __device__ void add_rows(float (&sums)[width], Key key, int num_rows, std::int64_t c) const {
    const T* const column = dy + (c < C ? c : 0);  // lanes beyond the last column add values that are not stored
    const std::int64_t of_lane = token_of(key) * dy_stride;
#pragma unroll
    for (int first = 0; first < most; first += rows_ahead) {
      if (first >= num_rows) break;
      Vector<T, width> rows[rows_ahead] = {};
#pragma unroll
      for (int r = 0; r < rows_ahead; ++r) {
        const T* const row = column + __shfl_sync(0xffffffffu, of_lane, first + r);
        if (first + r < num_rows) rows[r] = load_vector<width>(row);
      }
#pragma unroll
      for (int r = 0; r < rows_ahead; ++r) {
        if (first + r >= num_rows) break;
#pragma unroll
        for (int i = 0; i < width; ++i) sums[i] += rows[r].at(i);
      }
    }
  }

  template <int width>
  __device__ void load_sums(float (&sums)[width], std::uint32_t id, std::int64_t c) const {
    if (c < C) load(dweight + id * dweight_stride + c, sums);
  }
  template <int width>
  __device__ void store_sums(const float (&sums)[width], std::uint32_t id, std::int64_t c) const {
    if (c < C) store(sums, dweight + id * dweight_stride + c);
  }
};

constexpr int add_threads = 256;

// The blocks for one kind of work: a warp for every `keys` of N keys and every slab of columns, `width` of them for each of 32 lanes.
template <int keys, int width>
struct Blocks {
  static constexpr std::int64_t keys_of_block = keys * (add_threads / 32), slab = 32 * width;
  std::int64_t of_slab, count;

  __host__ __device__ Blocks(std::int64_t N, std::int64_t C)
      : of_slab((N + keys_of_block - 1) / keys_of_block), count(of_slab * ((C + slab - 1) / slab)) {}
  __device__ std::int64_t key(std::int64_t block) const {
    return block % of_slab * keys_of_block + threadIdx.x / 32 * keys;
  }
  __device__ std::int64_t column(std::int64_t block) const {
    return block / of_slab * slab + threadIdx.x % 32 * width;
  }
};

// The first blocks add long runs, with few columns per lane, so that a warp loads many rows at once. The others add short runs.
template <int wide, int narrow, class T, class G>
__global__ void __launch_bounds__(add_threads) add_tokens_kernel(Backward<T, G> backward) {
  const Blocks<32, narrow> long_runs(backward.N, backward.C);
  const Blocks<1, wide> short_runs(backward.N, backward.C);
  std::int64_t block = blockIdx.x;
  if (block < long_runs.count) return backward.template add_long_runs<narrow>(long_runs.key(block), long_runs.column(block));
  block -= long_runs.count;
  backward.template add_short_run<wide>(short_runs.key(block), short_runs.column(block));
}

}  // namespace

void embedding_forward(Context& context, const Tensor& weight, const Tensor& ids, const Tensor& y) {
  check_embedding_forward(weight, ids, y);
  const std::int64_t N = ids.size();
  if (N == 0) return;
  with_cuda_float("embedding_forward", weight.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&weight, &y}), [&]<int width>(std::integral_constant<int, width>) {
      for_each_vector<width>(
          context, N, weight.cols(),
          Forward<width, T>{rows_of<const T>(weight), ids.as<const std::int32_t>(), rows_of<T>(y), weight.rows(), context.status_words()});
    });
  });
}

void embedding_backward(Context& context, const Tensor& dy, const Tensor& ids, const Tensor& dweight, const Workspace& workspace) {
  check_embedding_backward(dy, ids, dweight);
  const std::int64_t N = ids.size(), C = dweight.cols();
  require_workspace("embedding_backward", workspace, 2 * sizeof(Key) * static_cast<std::size_t>(N));
  if (N == 0) return;
  Key* const sorted = static_cast<Key*>(workspace.data);
  Key* const tiles = sorted + N;
  launch(context, sort_tiles_kernel, grid_for(N, tile), sort_threads, 0, ids.as<const std::int32_t>(), tiles, N, dweight.rows(),
         context.status_words());
  launch(context, merge_tiles_kernel, grid_for(N * 32, merge_threads), merge_threads, 0, tiles, sorted, N);
  with_cuda_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_cuda_float("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const Backward<T, G> backward{sorted, dy.as<const T>(), dweight.as<G>(), N, C, dweight.rows(), dy.row_stride, dweight.row_stride};
      const auto run = [&](auto wide_tag, auto narrow_tag) {
        constexpr int wide = decltype(wide_tag)::value, narrow = decltype(narrow_tag)::value;
        const std::int64_t blocks = Blocks<32, narrow>(N, C).count + Blocks<1, wide>(N, C).count;
        MST_CHECK(blocks <= std::numeric_limits<int>::max(), "embedding_backward: dy ", dy, " is too large");
        launch(context, add_tokens_kernel<wide, narrow, T, G>, static_cast<unsigned>(blocks), add_threads, 0, backward);
      };
      if (is_vectorizable({&dy, &dweight}))
        run(std::integral_constant<int, vector_width<T>>{}, std::integral_constant<int, vector_width<T> / 4>{});
      else
        run(std::integral_constant<int, 1>{}, std::integral_constant<int, 1>{});
    });
  });
}

}  // namespace mst::cuda
