// Attention on tensor cores; see cuda/mma_attention.h. Tiles of rows lie in shared memory with a pitch that spreads them over the banks;
// a warp owns 16 rows of a tile. Scores are kept in units of log 2, so that exp is one instruction.
//   forward   2 products a tile of scores; a block owns 64 queries
//   backward  3 for dq, in blocks that own 64 queries, and 4 for dk and dv, in blocks that own 64 keys: 2 more than with atomic additions
#include <algorithm>

#include "../cuda/mma.h"
#include "../cuda/mma_attention.h"

namespace mst::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int warp_rows = 16, chunk = 8;  // a chunk: 16 bytes, what a copy moves
constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

// A tile of rows of a head of 16·steps elements, in shared memory.
template <int steps>
struct Tile {
  static constexpr int D = 16 * steps, pitch = D + chunk;
  Element* data;

  __device__ Element* at(int row, int col) const {
    return data + row * pitch + col;
  }

  // Begins to copy rows [first, first + rows) of a head; those from `end` on become zero.
  template <int rows, int num_threads>
  __device__ void load(const Heads<const Element>& from, std::int64_t first, std::int64_t end, std::int64_t head) const {
    for (int i = threadIdx.x; i < rows * (D / chunk); i += num_threads) {
      const int row = i / (D / chunk), col = i % (D / chunk) * chunk;
      const bool is_there = first + row < end;
      copy_async(at(row, col), from.row(is_there ? first + row : first, head, D) + col, is_there ? 16 : 0);
    }
  }

  // Fragment a of rows [row, row + 16), columns [16·step, …).
  __device__ void left(std::uint32_t (&a)[4], int row, int step) const {
    const int lane = threadIdx.x % 32;
    load_matrices(a, at(row + lane % 16, step * 16 + lane / 16 * 8));
  }
  // Fragments b of the transposed tile: columns are rows [row, row + 16) of this one, its rows elements [16·step, …).
  __device__ void right_transposed(std::uint32_t (&b)[2][2], int row, int step) const {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    std::uint32_t r[4];
    load_matrices(r, at(row + matrix / 2 * 8 + lane % 8, step * 16 + matrix % 2 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
  // Fragments b of the tile as it is: rows [row, row + 16), columns [16·step, …).
  __device__ void right(std::uint32_t (&b)[2][2], int row, int step) const {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    std::uint32_t r[4];
    load_matrices_transposed(r, at(row + matrix % 2 * 8 + lane % 8, step * 16 + matrix / 2 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
};

// sums (16, columns) = rows [row, …) of a · rows of bᵀ
template <int steps, int columns>
__device__ void multiply_rows(const Tile<steps>& a, int row, const Tile<steps>& b, float (&sums)[columns / 8][4]) {
#pragma unroll
  for (int j = 0; j < columns / 8; ++j)
    for (int i = 0; i < 4; ++i) sums[j][i] = 0;
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    std::uint32_t left[4];
    a.left(left, row, step);
#pragma unroll
    for (int j = 0; j < columns / 16; ++j) {
      std::uint32_t right[2][2];
      b.right_transposed(right, 16 * j, step);
      mma(sums[2 * j], left, right[0]);
      mma(sums[2 * j + 1], left, right[1]);
    }
  }
}

// sums (16, D) += weights (16, columns) · b (columns, D)
template <int steps, int columns>
__device__ void multiply_add(const float (&weights)[columns / 8][4], const Tile<steps>& b, float (&sums)[2 * steps][4]) {
#pragma unroll
  for (int j = 0; j < columns / 16; ++j) {
    const std::uint32_t left[4] = {pack(weights[2 * j][0], weights[2 * j][1]), pack(weights[2 * j][2], weights[2 * j][3]),
                                   pack(weights[2 * j + 1][0], weights[2 * j + 1][1]), pack(weights[2 * j + 1][2], weights[2 * j + 1][3])};
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t right[2][2];
      b.right(right, 16 * j, step);
      mma(sums[2 * step], left, right[0]);
      mma(sums[2 * step + 1], left, right[1]);
    }
  }
}

// Over the four lanes that share a row of a fragment.
__device__ inline float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// From products to scores in units of log 2: score = factor · capped(product). The scale is positive.
struct Scores {
  float factor, scale, softcap;

  __device__ explicit Scores(const Geometry& g) : factor((g.softcap > 0 ? 1.0f : g.scale) * log2_e), scale(g.scale), softcap(g.softcap) {}

  __device__ float capped(float product) const {
    return softcap > 0 ? softcap * tanhf(product * scale / softcap) : product;
  }
  // d(score) / d(product · scale), but for the change of units
  __device__ float slope(float capped) const {
    const float share = capped / softcap;
    return softcap > 0 ? 1.0f - share * share : 1.0f;
  }
  // 2^(score - shift)
  __device__ float exp(float capped, float shift) const {
    return exp2_approximate(capped * factor - shift);
  }
};

// Writes rows [first, …) below `end`, of 16 that the warp owns, each multiplied by its factor.
template <int steps>
__device__ void store(const float (&sums)[2 * steps][4], const float (&factors)[2], const Heads<Element>& to, std::int64_t first,
                      std::int64_t end, std::int64_t head) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t n = first + lane / 4 + 8 * half;
    if (n >= end) continue;
    Element* const row = to.row(n, head, 16 * steps);
#pragma unroll
    for (int j = 0; j < 2 * steps; ++j)
      *reinterpret_cast<std::uint32_t*>(row + 8 * j + lane % 4 * 2) =
          pack(sums[j][2 * half] * factors[half], sums[j][2 * half + 1] * factors[half]);
  }
}

// Columns [first, last] of a tile.
struct Columns {
  int first, last;

  __device__ static Columns of(std::int64_t first, std::int64_t last) {
    constexpr std::int64_t beyond = 1 << 20;  // more than any tile
    return {static_cast<int>(first < -beyond  ? -beyond
                             : first > beyond ? beyond
                                              : first),
            static_cast<int>(last < -beyond  ? -beyond
                             : last > beyond ? beyond
                                             : last)};
  }
  __device__ bool have(int column) const {
    return column >= first && column <= last;
  }
  __device__ bool have_all(int columns) const {
    return first <= 0 && last >= columns - 1;
  }
};

constexpr int forward_queries = 64, keys_of_tile = 64, forward_threads = forward_queries / warp_rows * 32;

// Grid: (query tiles of a sequence, the last first, B·H).
template <int steps>
__global__ void __launch_bounds__(forward_threads)
    mma_attention_forward_kernel(Heads<const Element> q, Heads<const Element> k, Heads<const Element> v, Heads<Element> out, float* lse,
                                 Geometry g) {
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> queries{shared}, keys{queries.at(forward_queries, 0)}, values{keys.at(keys_of_tile, 0)};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t b = blockIdx.y / g.H, h = blockIdx.y % g.H, group = h / (g.H / g.G), sequence_end = (b + 1) * g.T;
  const std::int64_t begin = b * g.T + std::int64_t(gridDim.x - 1 - blockIdx.x) * forward_queries;  // the longest work first
  const std::int64_t end = begin + forward_queries < sequence_end ? begin + forward_queries : sequence_end;
  const std::int64_t row = begin + warp * warp_rows + lane / 4;  // and row + 8
  const std::int64_t last = end - 1;
  const std::int64_t first_seen[2] = {g.first_key(row < last ? row : last), g.first_key(row + 8 < last ? row + 8 : last)};
  const std::int64_t first = g.first_key(begin);

  queries.template load<forward_queries, forward_threads>(q, begin, end, h);
  keys.template load<keys_of_tile, forward_threads>(k, first, end, group);
  commit_copies();
  const Scores scale(g);
  float sums[2 * steps][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {};  // max: of capped products
  for (std::int64_t key = first; key < end; key += keys_of_tile) {
    wait_for_copies<0>();
    __syncthreads();  // the keys are there, and the values of the tile before have been read
    values.template load<keys_of_tile, forward_threads>(v, key, end, group);
    commit_copies();
    float scores[keys_of_tile / 8][4];
    multiply_rows<steps, keys_of_tile>(queries, warp * warp_rows, keys, scores);
    wait_for_copies<0>();
    __syncthreads();  // the values are there, and the keys have been read
    if (key + keys_of_tile < end) {
      keys.template load<keys_of_tile, forward_threads>(k, key + keys_of_tile, end, group);
      commit_copies();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Columns seen = Columns::of(first_seen[half] - key, row + 8 * half - key);
      if (scale.softcap > 0) {
#pragma unroll
        for (int j = 0; j < keys_of_tile / 8; ++j)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) scores[j][i] = scale.capped(scores[j][i]);
      }
      if (!seen.have_all(keys_of_tile)) {
#pragma unroll
        for (int j = 0; j < keys_of_tile / 8; ++j)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i)
            if (!seen.have(8 * j + lane % 4 * 2 + i % 2)) scores[j][i] = -INFINITY;
      }
      float largest = max[half];
#pragma unroll
      for (int j = 0; j < keys_of_tile / 8; ++j) largest = fmaxf(largest, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
      largest = row_max(largest);
      const float shift = largest == -INFINITY ? 0.0f : largest * scale.factor;  // a row that has seen no key yet
      const float shrink = scale.exp(max[half], shift);
      float added = 0;
#pragma unroll
      for (int j = 0; j < keys_of_tile / 8; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[j][i] = scale.exp(scores[j][i], shift);
          added += scores[j][i];
        }
      sum[half] = sum[half] * shrink + added;
      max[half] = largest;
#pragma unroll
      for (int j = 0; j < 2 * steps; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) sums[j][i] *= shrink;
    }
    multiply_add<steps, keys_of_tile>(scores, values, sums);
  }
  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = row_sum(sum[half]);
    factors[half] = 1.0f / total;
    const std::int64_t n = row + 8 * half;
    if (lane % 4 == 0 && n < end) lse[(b * g.H + h) * g.T + n - b * g.T] = (max[half] * scale.factor + log2f(total)) * ln_2;
  }
  store<steps>(sums, factors, out, begin + warp * warp_rows, end, h);
}

constexpr int backward_rows = 64, backward_threads = backward_rows / warp_rows * 32, queries_of_tile = 32;

// Grid: (query tiles of a sequence, the last first, B·H).
template <int steps>
__global__ void __launch_bounds__(backward_threads)
    mma_attention_dq_kernel(Heads<const Element> dout, Heads<const Element> q, Heads<const Element> k, Heads<const Element> v,
                            const float* lse, const float* delta, Heads<Element> dq, Geometry g) {
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> queries{shared}, douts{queries.at(backward_rows, 0)}, keys{douts.at(backward_rows, 0)},
      values{keys.at(keys_of_tile, 0)};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t b = blockIdx.y / g.H, h = blockIdx.y % g.H, group = h / (g.H / g.G), sequence_end = (b + 1) * g.T;
  const std::int64_t begin = b * g.T + std::int64_t(gridDim.x - 1 - blockIdx.x) * backward_rows;
  const std::int64_t end = begin + backward_rows < sequence_end ? begin + backward_rows : sequence_end;
  const std::int64_t row = begin + warp * warp_rows + lane / 4, last = end - 1, first_row = (b * g.H + h) * g.T - b * g.T;
  float lses[2], deltas[2];
  std::int64_t first_seen[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t n = row + 8 * half < last ? row + 8 * half : last;
    lses[half] = lse[first_row + n] * log2_e;
    deltas[half] = delta[first_row + n];
    first_seen[half] = g.first_key(n);
  }
  queries.template load<backward_rows, backward_threads>(q, begin, end, h);
  douts.template load<backward_rows, backward_threads>(dout, begin, end, h);
  const Scores scale(g);
  float sums[2 * steps][4] = {};
  for (std::int64_t key = g.first_key(begin); key < end; key += keys_of_tile) {
    __syncthreads();  // the tile before has been read
    keys.template load<keys_of_tile, backward_threads>(k, key, end, group);
    commit_copies();
    values.template load<keys_of_tile, backward_threads>(v, key, end, group);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    float scores[keys_of_tile / 8][4], dscores[keys_of_tile / 8][4];
    multiply_rows<steps, keys_of_tile>(queries, warp * warp_rows, keys, scores);
    wait_for_copies<0>();
    __syncthreads();
    multiply_rows<steps, keys_of_tile>(douts, warp * warp_rows, values, dscores);
    const Columns seen[2] = {Columns::of(first_seen[0] - key, row - key), Columns::of(first_seen[1] - key, row + 8 - key)};
    const bool whole = seen[0].have_all(keys_of_tile) && seen[1].have_all(keys_of_tile);
#pragma unroll
    for (int j = 0; j < keys_of_tile / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float score = scale.capped(scores[j][i]);
        const float p = whole || seen[i / 2].have(8 * j + lane % 4 * 2 + i % 2) ? scale.exp(score, lses[i / 2]) : 0.0f;
        dscores[j][i] = p * (dscores[j][i] - deltas[i / 2]) * scale.slope(score);
      }
    multiply_add<steps, keys_of_tile>(dscores, keys, sums);
  }
  const float factors[2] = {g.scale, g.scale};
  store<steps>(sums, factors, dq, begin + warp * warp_rows, end, h);
}

// Grid: (key tiles of a sequence, B·G). Goes through the group's query heads and the queries that may see the tile, in order, with the
// scores transposed: a row is a key.
template <int steps>
__global__ void __launch_bounds__(backward_threads)
    mma_attention_dkv_kernel(Heads<const Element> dout, Heads<const Element> q, Heads<const Element> k, Heads<const Element> v,
                             const float* lse, const float* delta, Heads<Element> dk, Heads<Element> dv, Geometry g) {
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> keys{shared}, values{keys.at(backward_rows, 0)}, queries{values.at(backward_rows, 0)},
      douts{queries.at(queries_of_tile, 0)};
  __shared__ float lses[queries_of_tile], deltas[queries_of_tile];
  __shared__ int first_seen[queries_of_tile];  // keys, counted from the tile's first
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t b = blockIdx.y / g.G, group = blockIdx.y % g.G, heads_per_group = g.H / g.G, sequence_end = (b + 1) * g.T;
  const std::int64_t key = b * g.T + std::int64_t(blockIdx.x) * backward_rows;
  const std::int64_t key_end = key + backward_rows < sequence_end ? key + backward_rows : sequence_end;
  keys.template load<backward_rows, backward_threads>(k, key, key_end, group);
  values.template load<backward_rows, backward_threads>(v, key, key_end, group);
  const Scores scale(g);
  float dkeys[2 * steps][4] = {}, dvalues[2 * steps][4] = {};
  for (std::int64_t h = group * heads_per_group; h < (group + 1) * heads_per_group; ++h) {
    const std::int64_t first_row = (b * g.H + h) * g.T - b * g.T;
    for (std::int64_t query = key; query < sequence_end; query += queries_of_tile) {
      if (g.first_key(query) >= key_end) break;  // no later query sees the tile
      const std::int64_t query_end = query + queries_of_tile < sequence_end ? query + queries_of_tile : sequence_end;
      __syncthreads();  // the tile before has been read
      queries.template load<queries_of_tile, backward_threads>(q, query, query_end, h);
      douts.template load<queries_of_tile, backward_threads>(dout, query, query_end, h);
      commit_copies();
      if (threadIdx.x < queries_of_tile) {
        const std::int64_t n = query + threadIdx.x;
        const bool is_there = n < query_end;
        lses[threadIdx.x] = is_there ? lse[first_row + n] * log2_e : 0.0f;
        deltas[threadIdx.x] = is_there ? delta[first_row + n] : 0.0f;
        const std::int64_t first = is_there ? g.first_key(n) - key : backward_rows;  // a query that is not there sees nothing
        first_seen[threadIdx.x] = static_cast<int>(first < 0 ? 0 : first < backward_rows ? first : backward_rows);
      }
      wait_for_copies<0>();
      __syncthreads();
      float scores[queries_of_tile / 8][4], dscores[queries_of_tile / 8][4];
      multiply_rows<steps, queries_of_tile>(keys, warp * warp_rows, queries, scores);
      multiply_rows<steps, queries_of_tile>(values, warp * warp_rows, douts, dscores);
      const int ahead = static_cast<int>(query - key < backward_rows ? query - key : backward_rows);  // of the queries, before the keys
#pragma unroll
      for (int j = 0; j < queries_of_tile / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 8 * j + lane % 4 * 2 + i % 2, s = warp * warp_rows + lane / 4 + i / 2 * 8;
          const float score = scale.capped(scores[j][i]);
          const float p = s <= ahead + column && s >= first_seen[column] ? scale.exp(score, lses[column]) : 0.0f;
          scores[j][i] = p;
          dscores[j][i] = p * (dscores[j][i] - deltas[column]) * scale.slope(score);
        }
      multiply_add<steps, queries_of_tile>(scores, douts, dvalues);
      multiply_add<steps, queries_of_tile>(dscores, queries, dkeys);
    }
  }
  wait_for_copies<0>();
  const float scales[2] = {g.scale, g.scale}, ones[2] = {1, 1};
  store<steps>(dkeys, scales, dk, key + warp * warp_rows, key_end, group);
  store<steps>(dvalues, ones, dv, key + warp * warp_rows, key_end, group);
}

unsigned tiles(std::int64_t T, int tile) {
  return static_cast<unsigned>((T + tile - 1) / tile);
}

template <int steps>
constexpr std::size_t bytes_of(int rows) {
  return static_cast<std::size_t>(rows) * Tile<steps>::pitch * sizeof(Element);
}

template <class Function>
void with_steps(std::int64_t D, const Function& function) {
  switch (D) {
    case 64:
      return function(std::integral_constant<int, 4>{});
    case 80:
      return function(std::integral_constant<int, 5>{});
    case 96:
      return function(std::integral_constant<int, 6>{});
    default:
      return function(std::integral_constant<int, 8>{});
  }
}

}  // namespace

bool mma_attention_applies(std::initializer_list<const Tensor*> tensors, std::int64_t D, double scale) {
  if (scale <= 0) return false;
  if (D != 64 && D != 80 && D != 96 && D != 128) return false;
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* t) {
    return t->dtype == Dtype::bf16 && t->row_stride % chunk == 0 && reinterpret_cast<std::uintptr_t>(t->data) % 16 == 0;
  });
}

void mma_attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Geometry& g) {
  with_steps(g.D, [&](auto steps) {
    constexpr int n = decltype(steps)::value;
    launch(mma_attention_forward_kernel<n>, dim3(tiles(g.T, forward_queries), static_cast<unsigned>(g.N / g.T * g.H)), forward_threads,
           bytes_of<n>(forward_queries + 2 * keys_of_tile), heads<const Element>(q), heads<const Element>(k), heads<const Element>(v),
           heads<Element>(out), lse.as<float>(), g);
  });
}

void mma_attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lse, const float* delta,
                            const Tensor& dq, const Tensor& dk, const Tensor& dv, const Geometry& g) {
  const unsigned B = static_cast<unsigned>(g.N / g.T), H = static_cast<unsigned>(g.H), G = static_cast<unsigned>(g.G);
  with_steps(g.D, [&](auto steps) {
    constexpr int n = decltype(steps)::value;
    launch(mma_attention_dq_kernel<n>, dim3(tiles(g.T, backward_rows), B * H), backward_threads,
           bytes_of<n>(2 * backward_rows + 2 * keys_of_tile), heads<const Element>(dout), heads<const Element>(q), heads<const Element>(k),
           heads<const Element>(v), lse.as<const float>(), delta, heads<Element>(dq), g);
    launch(mma_attention_dkv_kernel<n>, dim3(tiles(g.T, backward_rows), B * G), backward_threads,
           bytes_of<n>(2 * backward_rows + 2 * queries_of_tile), heads<const Element>(dout), heads<const Element>(q),
           heads<const Element>(k), heads<const Element>(v), lse.as<const float>(), delta, heads<Element>(dk), heads<Element>(dv), g);
  });
}

}  // namespace mst::cuda
