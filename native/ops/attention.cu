// Attention on CUDA; see attention.h. cuDNN or tensor cores (attention_mma.h) compute bf16 with usual head sizes. This file computes
// everything else: tile by tile in shared memory, with products by FMA in f32. Deterministic: one kernel of the backward owns tiles of
// queries and computes dq, another owns tiles of keys and computes dk and dv, so that nothing is added atomically.
#include "attention.h"

#include "../cuda/attention/cudnn_attention.h"
#include "attention_mma.h"
#include "attention_own.h"
#include "contract.h"

namespace mst::cuda {
namespace {

constexpr int side = 16;  // a block has side × side threads; thread (tx, ty) owns rows ty + side·i and columns tx + side·j of a tile
constexpr int block_size = side * side;

// Loads rows [begin, begin + tile) of a head as f32, with a pitch of D + 1 to avoid bank conflicts. Rows from `end` on are 0.
template <int tile, class T>
__device__ void load_tile(const Heads<const T>& from, std::int64_t begin, std::int64_t end, std::int64_t head, std::int64_t D, float* to) {
  for (std::int64_t i = threadIdx.x; i < tile * D; i += block_size) {
    const std::int64_t r = i / D, d = i % D;
    to[r * (D + 1) + d] = begin + r < end ? to_float(from.row(begin + r, head, D)[d]) : 0.0f;
  }
}

// result[i][j] = Σ_d a[row i][d] · b[row j][d], for the rows that the thread owns.
template <int tile>
__device__ void multiply_rows(const float* a, const float* b, std::int64_t D, float (&result)[tile / side][tile / side]) {
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  for (auto& row : result)
    for (float& value : row) value = 0;
  for (std::int64_t d = 0; d < D; ++d) {
#pragma unroll
    for (int i = 0; i < tile / side; ++i) {
      const float left = a[(ty + side * i) * (D + 1) + d];
#pragma unroll
      for (int j = 0; j < tile / side; ++j) result[i][j] += left * b[(tx + side * j) * (D + 1) + d];
    }
  }
}

// sums[i][j] += Σ_k weights[row i][k] · values[k][column j], with weights (tile, tile + 1) or, transposed, weights[k][row i].
template <int tile, bool transposed, int columns>
__device__ void multiply_add(const float* weights, const float* values, std::int64_t D, float (&sums)[tile / side][columns]) {
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  for (int k = 0; k < tile; ++k) {
#pragma unroll
    for (int i = 0; i < tile / side; ++i) {
      const int r = ty + side * i;
      const float weight = transposed ? weights[k * (tile + 1) + r] : weights[r * (tile + 1) + k];
#pragma unroll
      for (int j = 0; j < columns; ++j)
        if (tx + side * j < D) sums[i][j] += weight * values[k * (D + 1) + tx + side * j];
    }
  }
}

// Maximum and sum over the `side` threads that share a row of a tile.
__device__ inline float row_max(float value) {
#pragma unroll
  for (int offset = side / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}
__device__ inline float row_sum(float value) {
#pragma unroll
  for (int offset = side / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ inline float capped(float score, float softcap) {
  return softcap > 0 ? softcap * tanhf(score / softcap) : score;
}

// Grid: (query tiles of a sequence, B·H).
template <int tile, int columns, class T>
__global__ void __launch_bounds__(block_size)
    attention_forward_kernel(Heads<const T> q, Heads<const T> k, Heads<const T> v, Heads<T> out, float* lse, Geometry g) {
  DYNAMIC_SHARED(float, shared);
  float* const queries = shared;
  float* const keys = queries + tile * (g.D + 1);  // later the values
  float* const weights = keys + tile * (g.D + 1);
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  const std::int64_t b = blockIdx.y / g.H, h = blockIdx.y % g.H, group = h / (g.H / g.G);
  const std::int64_t begin = b * g.T + std::int64_t(blockIdx.x) * tile, sequence_end = (b + 1) * g.T;
  const std::int64_t end = begin + tile < sequence_end ? begin + tile : sequence_end;
  load_tile<tile>(q, begin, end, h, g.D, queries);
  float sums[tile / side][columns] = {}, max[tile / side], sum[tile / side] = {};
  for (float& value : max) value = -INFINITY;
  // first_key never decreases from one query to the next: the first query's is the smallest
  for (std::int64_t key = g.first_key(begin); key < end; key += tile) {
    const std::int64_t key_end = key + tile < end ? key + tile : end;
    load_tile<tile>(k, key, key_end, group, g.D, keys);
    __syncthreads();
    float scores[tile / side][tile / side];
    multiply_rows<tile>(queries, keys, g.D, scores);
    for (int i = 0; i < tile / side; ++i) {
      const std::int64_t n = begin + ty + side * i;
      float largest = -INFINITY;
      for (int j = 0; j < tile / side; ++j) {
        const std::int64_t s = key + tx + side * j;
        scores[i][j] = n < end && s < key_end && g.sees(n, s) ? capped(scores[i][j] * g.scale, g.softcap) : -INFINITY;
        largest = fmaxf(largest, scores[i][j]);
      }
      const float new_max = fmaxf(max[i], row_max(largest));
      const float shift = new_max == -INFINITY ? 0.0f : new_max;  // so far the row has seen no key
      float added = 0;
      for (int j = 0; j < tile / side; ++j) {
        const float weight = expf(scores[i][j] - shift);
        weights[(ty + side * i) * (tile + 1) + tx + side * j] = weight;
        added += weight;
      }
      const float shrink = expf(max[i] - shift);
      sum[i] = sum[i] * shrink + row_sum(added);
      max[i] = new_max;
      for (float& value : sums[i]) value *= shrink;
    }
    __syncthreads();  // all threads have read the keys and written the weights
    load_tile<tile>(v, key, key_end, group, g.D, keys);
    __syncthreads();
    multiply_add<tile, false, columns>(weights, keys, g.D, sums);
    __syncthreads();  // before the next keys and weights are written
  }
  for (int i = 0; i < tile / side; ++i) {
    const std::int64_t n = begin + ty + side * i;
    if (n >= end) continue;
    for (int j = 0; j < columns; ++j)
      if (tx + side * j < g.D) out.row(n, h, g.D)[tx + side * j] = from_float<T>(sums[i][j] / sum[i]);
    if (tx == 0) lse[(b * g.H + h) * g.T + n - b * g.T] = max[i] + logf(sum[i]);
  }
}

// delta (B,H,T) = Σ_d dout · out, one warp per row and head.
template <class T>
__global__ void attention_delta_kernel(Heads<const T> dout, Heads<const T> out, float* delta, Geometry g) {
  const int lane = threadIdx.x % 32;
  const std::int64_t warps = grid_threads() / 32;
  for (std::int64_t i = grid_thread() / 32; i < g.N * g.H; i += warps) {
    const std::int64_t n = i / g.H, h = i % g.H;
    float dot = 0;
    for (std::int64_t d = lane; d < g.D; d += 32) dot += to_float(dout.row(n, h, g.D)[d]) * to_float(out.row(n, h, g.D)[d]);
    for (int offset = 16; offset > 0; offset /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, offset);
    if (lane == 0) delta[(n / g.T * g.H + h) * g.T + n % g.T] = dot;
  }
}

// The shared memory of a tile of the backward: rows of D + 1 elements, and two squares (tile, tile + 1).
template <int tile>
struct BackwardTiles {
  float *queries, *douts, *keys, *values, *probabilities, *dscores;

  __device__ BackwardTiles(float* shared, std::int64_t D) {
    const std::int64_t pitch = tile * (D + 1);
    queries = shared, douts = shared + pitch, keys = shared + 2 * pitch, values = shared + 3 * pitch;
    probabilities = shared + 4 * pitch, dscores = probabilities + tile * (tile + 1);
  }
};

struct Range {
  std::int64_t begin, end;
};

// Computes probabilities and dscores of a tile. lse and delta point to the head's first row of the sequence.
template <int tile>
__device__ void tile_gradients(const BackwardTiles<tile>& t, const Range& of_queries, const Range& of_keys, const float* lse,
                               const float* delta, const Geometry& g) {
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  float scores[tile / side][tile / side], dprobabilities[tile / side][tile / side];
  multiply_rows<tile>(t.queries, t.keys, g.D, scores);
  multiply_rows<tile>(t.douts, t.values, g.D, dprobabilities);
  for (int i = 0; i < tile / side; ++i) {
    const std::int64_t n = of_queries.begin + ty + side * i;
    for (int j = 0; j < tile / side; ++j) {
      const std::int64_t s = of_keys.begin + tx + side * j;
      float p = 0, ds = 0;
      if (n < of_queries.end && s < of_keys.end && g.sees(n, s)) {
        const float score = capped(scores[i][j] * g.scale, g.softcap);
        p = expf(score - lse[n % g.T]);
        ds = p * (dprobabilities[i][j] - delta[n % g.T]);
        if (g.softcap > 0) ds *= 1.0f - (score / g.softcap) * (score / g.softcap);
      }
      t.probabilities[(ty + side * i) * (tile + 1) + tx + side * j] = p;
      t.dscores[(ty + side * i) * (tile + 1) + tx + side * j] = ds * g.scale;
    }
  }
}

template <int tile>
constexpr std::size_t backward_shared_bytes(std::int64_t D) {
  return (4 * tile * (D + 1) + 2 * tile * (tile + 1)) * sizeof(float);
}

// Grid: (query tiles of a sequence, B·H).
template <int tile, int columns, class T>
__global__ void __launch_bounds__(block_size) attention_dq_kernel(Heads<const T> dout, Heads<const T> q, Heads<const T> k, Heads<const T> v,
                                                                  const float* lse, const float* delta, Heads<T> dq, Geometry g) {
  DYNAMIC_SHARED(float, shared);
  const BackwardTiles<tile> t(shared, g.D);
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  const std::int64_t b = blockIdx.y / g.H, h = blockIdx.y % g.H, group = h / (g.H / g.G), first_row = (b * g.H + h) * g.T;
  const std::int64_t begin = b * g.T + std::int64_t(blockIdx.x) * tile, sequence_end = (b + 1) * g.T;
  const std::int64_t end = begin + tile < sequence_end ? begin + tile : sequence_end;
  load_tile<tile>(q, begin, end, h, g.D, t.queries);
  load_tile<tile>(dout, begin, end, h, g.D, t.douts);
  float sums[tile / side][columns] = {};
  for (std::int64_t key = g.first_key(begin); key < end; key += tile) {
    const std::int64_t key_end = key + tile < end ? key + tile : end;
    load_tile<tile>(k, key, key_end, group, g.D, t.keys);
    load_tile<tile>(v, key, key_end, group, g.D, t.values);
    __syncthreads();
    tile_gradients<tile>(t, {begin, end}, {key, key_end}, lse + first_row, delta + first_row, g);
    __syncthreads();  // all threads have written the dscores
    multiply_add<tile, false, columns>(t.dscores, t.keys, g.D, sums);
    __syncthreads();  // before the next keys and dscores are written
  }
  for (int i = 0; i < tile / side; ++i) {
    const std::int64_t n = begin + ty + side * i;
    for (int j = 0; n < end && j < columns; ++j)
      if (tx + side * j < g.D) dq.row(n, h, g.D)[tx + side * j] = from_float<T>(sums[i][j]);
  }
}

// Grid: (key tiles of a sequence, B·G). Goes through the group's query heads and the queries that may see the tile, in order.
template <int tile, int columns, class T>
__global__ void __launch_bounds__(block_size)
    attention_dkv_kernel(Heads<const T> dout, Heads<const T> q, Heads<const T> k, Heads<const T> v, const float* lse, const float* delta,
                         Heads<T> dk, Heads<T> dv, Geometry g) {
  DYNAMIC_SHARED(float, shared);
  const BackwardTiles<tile> t(shared, g.D);
  const int tx = threadIdx.x % side, ty = threadIdx.x / side;
  const std::int64_t b = blockIdx.y / g.G, group = blockIdx.y % g.G, heads_per_group = g.H / g.G, sequence_end = (b + 1) * g.T;
  const std::int64_t key = b * g.T + std::int64_t(blockIdx.x) * tile, key_end = key + tile < sequence_end ? key + tile : sequence_end;
  load_tile<tile>(k, key, key_end, group, g.D, t.keys);
  load_tile<tile>(v, key, key_end, group, g.D, t.values);
  float dkeys[tile / side][columns] = {}, dvalues[tile / side][columns] = {};
  for (std::int64_t h = group * heads_per_group; h < (group + 1) * heads_per_group; ++h) {
    const std::int64_t first_row = (b * g.H + h) * g.T;
    for (std::int64_t query = key; query < sequence_end; query += tile) {
      if (g.first_key(query) >= key_end) break;  // no later query sees this tile either
      const std::int64_t query_end = query + tile < sequence_end ? query + tile : sequence_end;
      load_tile<tile>(q, query, query_end, h, g.D, t.queries);
      load_tile<tile>(dout, query, query_end, h, g.D, t.douts);
      __syncthreads();
      tile_gradients<tile>(t, {query, query_end}, {key, key_end}, lse + first_row, delta + first_row, g);
      __syncthreads();  // all threads have written probabilities and dscores
      multiply_add<tile, true, columns>(t.probabilities, t.douts, g.D, dvalues);
      multiply_add<tile, true, columns>(t.dscores, t.queries, g.D, dkeys);
      __syncthreads();  // before the next queries are written
    }
  }
  for (int i = 0; i < tile / side; ++i) {
    const std::int64_t s = key + ty + side * i;
    for (int j = 0; s < key_end && j < columns; ++j) {
      if (tx + side * j >= g.D) continue;
      dk.row(s, group, g.D)[tx + side * j] = from_float<T>(dkeys[i][j]);
      dv.row(s, group, g.D)[tx + side * j] = from_float<T>(dvalues[i][j]);
    }
  }
}

Geometry on_device(const AttentionGeometry& geometry, const AttentionOptions& options) {
  constexpr std::int64_t max_head_size = 256;
  MST_CHECK(geometry.D <= max_head_size, "attention: head size ", geometry.D, " is above ", max_head_size);
  return {geometry, float(options.scale), float(options.softcap)};
}

unsigned tiles(std::int64_t T, int tile) {
  return static_cast<unsigned>((T + tile - 1) / tile);
}

// Calls function(columns of a head per thread) for the smallest size that holds D.
template <class Function>
void with_head_size(std::int64_t D, const Function& function) {
  if (D <= 64)
    function(std::integral_constant<int, 64 / side>{});
  else if (D <= 128)
    function(std::integral_constant<int, 128 / side>{});
  else
    function(std::integral_constant<int, 256 / side>{});
}

}  // namespace

void own_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                           const AttentionOptions& options) {
  constexpr int tile = 32;
  const Geometry g = on_device(check_attention("attention_forward", inputs, out, lse, options), options);
  if (g.N == 0) return;
  const Tensor &q = inputs.q, &k = inputs.k, &v = inputs.v;
  if (mma_attention_applies(context, {&q, &k, &v, &out}, g.D, options.scale)) return mma_attention_forward(context, inputs, out, lse, g);
  with_cuda_float("attention_forward", q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    with_head_size(g.D, [&](auto columns) {
      const std::size_t shared_bytes = static_cast<std::size_t>(2 * tile * (g.D + 1) + tile * (tile + 1)) * sizeof(float);
      launch(context, attention_forward_kernel<tile, decltype(columns)::value, E>,
             dim3(tiles(g.T, tile), static_cast<unsigned>(g.N / g.T * g.H)), block_size, shared_bytes, heads<const E>(q), heads<const E>(k),
             heads<const E>(v), heads<E>(out), lse.as<float>(), g);
    });
  });
}

void own_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                            const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options) {
  constexpr int tile = 32;
  const Geometry g = on_device(check_attention("attention_backward", inputs, out, lse, options), options);
  check_attention_gradients(dout, inputs, gradients);
  if (g.N == 0) return;
  require_workspace("attention_backward", workspace, static_cast<std::size_t>(g.N * g.H) * sizeof(float));
  float* const delta = static_cast<float*>(workspace.data);
  const Tensor &q = inputs.q, &k = inputs.k, &v = inputs.v, &dq = gradients.dq, &dk = gradients.dk, &dv = gradients.dv;
  const unsigned B = static_cast<unsigned>(g.N / g.T), H = static_cast<unsigned>(g.H), G = static_cast<unsigned>(g.G);
  with_cuda_float("attention_backward", q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    launch(context, attention_delta_kernel<E>, grid_for(g.N * g.H, block_size / 32), block_size, 0, heads<const E>(dout),
           heads<const E>(out), delta, g);
    if (mma_attention_applies(context, {&dout, &q, &k, &v, &dq, &dk, &dv}, g.D, options.scale))
      return mma_attention_backward(context, {dout, inputs, lse, delta}, gradients, g, context.max_shared_bytes());
    with_head_size(g.D, [&](auto columns) {
      constexpr int owned = decltype(columns)::value;
      const std::size_t shared_bytes = backward_shared_bytes<tile>(g.D);
      launch(context, attention_dq_kernel<tile, owned, E>, dim3(tiles(g.T, tile), B * H), block_size, shared_bytes, heads<const E>(dout),
             heads<const E>(q), heads<const E>(k), heads<const E>(v), lse.as<const float>(), delta, heads<E>(dq), g);
      launch(context, attention_dkv_kernel<tile, owned, E>, dim3(tiles(g.T, tile), B * G), block_size, shared_bytes, heads<const E>(dout),
             heads<const E>(q), heads<const E>(k), heads<const E>(v), lse.as<const float>(), delta, heads<E>(dk), heads<E>(dv), g);
    });
  });
}

void attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
                       const AttentionOptions& options) {
  check_attention("attention_forward", inputs, out, lse, options);
  if (!cudnn_attention_forward(context, inputs, out, lse, workspace, options)) own_attention_forward(context, inputs, out, lse, options);
}

void attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                        const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options) {
  check_attention("attention_backward", inputs, out, lse, options);
  check_attention_gradients(dout, inputs, gradients);
  if (!cudnn_attention_backward(context, dout, inputs, out, lse, gradients, workspace, options))
    own_attention_backward(context, dout, inputs, out, lse, gradients, workspace, options);
}

}  // namespace mst::cuda
