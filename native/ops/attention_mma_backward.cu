// The backward of attention on tensor cores; see attention_mma.h. Blocks that own queries compute dq, with three products per tile; blocks
// that own keys compute dk and dv, with four. Atomic additions would need two products less.
#include <algorithm>

#include "attention_mma.h"
#include "attention_mma_tiles.h"

namespace mst::cuda {
namespace {

// Turns the scores of a tile, in place, into probabilities, and dprobabilities into dscores; those that a row does not see become 0. lse
// (in units of log 2), delta and seen are those of the R·16 rows, by [r][half].
template <int R, int J>
__device__ void differentiate(const Scores& scale, const float (&lse)[R][2], const float (&delta)[R][2], const Columns (&seen)[R][2],
                              float (&scores)[R][J][4], float (&dscores)[R][J][4]) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) dscores[r][j][i] -= delta[r][i / 2];
  if (scale.softcap > 0) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[r][j][i] = scale.capped(scores[r][j][i]);
          dscores[r][j][i] *= scale.slope(scores[r][j][i]);
        }
  }
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!seen[r][half].have_all(8 * J)) {
#pragma unroll
        for (int j = 0; j < J; ++j)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i)
            if (!seen[r][half].have(column_of(j, i))) scores[r][j][i] = -INFINITY;
      }
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[r][j][i] = scale.exp(scores[r][j][i], lse[r][half]);
          dscores[r][j][i] *= scores[r][j][i];
        }
    }
}

constexpr int dq_keys = 32;

// Grid: query tiles of a sequence, for each of B·H heads. With key_stages = 2 the next keys are copied while these are being read.
template <int steps, int R, int key_stages>
__global__ void __launch_bounds__(threads_of_queries, 2)
    mma_attention_dq_kernel(Heads<const Element> dout, Heads<const Element> q, Heads<const Element> k, Heads<const Element> v,
                            const float* lse, const float* delta, Heads<Element> dq, Geometry g) {
  constexpr int rows = owned_queries<R>, columns = dq_keys;
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> queries{shared}, douts{queries.at(rows, 0)}, values{douts.at(rows, 0)}, all_keys{values.at(columns, 0)};
  const Queries<R, rows> own(g);
  const std::int64_t end = own.sequence + own.end;
  float lses[R][2], deltas[R][2];
  int first_seen[R][2];
#pragma unroll
  for (int r = 0; r < R; ++r)
    for (int half = 0; half < 2; ++half) {
      const int n = own.row_within(r, half);
      lses[r][half] = lse[own.statistics + n] * log2_e;
      deltas[r][half] = delta[own.statistics + n];
      first_seen[r][half] = g.first_position(own.sequence, n);
    }
  const int first = g.first_position(own.sequence, own.begin);
  queries.template load<rows, threads_of_queries>(q, own.sequence + own.begin, end, own.h);
  douts.template load<rows, threads_of_queries>(dout, own.sequence + own.begin, end, own.h);
  all_keys.template load<columns, threads_of_queries>(k, own.sequence + first, end, own.group);
  values.template load<columns, threads_of_queries>(v, own.sequence + first, end, own.group);
  commit_copies();
  const Scores scale(g);
  float sums[R][2 * steps][4] = {};
  int stage = 0;
  for (int key = first; key < own.end; key += columns) {
    const Tile<steps> keys{all_keys.at(stage * columns, 0)};
    const int next = key + columns;
    stage = key_stages - 1 - stage;
    const auto load_next_keys = [&] {
      if (next >= own.end) return;
      const Tile<steps> next_keys{all_keys.at(stage * columns, 0)};
      next_keys.template load<columns, threads_of_queries>(k, own.sequence + next, end, own.group);
      commit_copies();
    };
    wait_for_copies<0>();
    __syncthreads();  // keys and values have arrived, and all threads have read the keys of the previous tile
    if (key_stages == 2) load_next_keys();
    float scores[R][columns / 8][4], dscores[R][columns / 8][4];
    multiply_rows(queries, own.first_of_warp, keys, 0, scores);
    multiply_rows(douts, own.first_of_warp, values, 0, dscores);
    __syncthreads();  // all threads have read the values
    if (next < own.end) {
      values.template load<columns, threads_of_queries>(v, own.sequence + next, end, own.group);
      commit_copies();
    }
    Columns seen[R][2];
#pragma unroll
    for (int r = 0; r < R; ++r)
      for (int half = 0; half < 2; ++half) seen[r][half] = own.seen(first_seen[r][half], r, half, key);
    differentiate(scale, lses, deltas, seen, scores, dscores);
    multiply_add(dscores, keys, sums);
    if (key_stages == 1) {
      __syncthreads();  // all threads have read the keys
      load_next_keys();
    }
  }
  const float factors[2] = {g.scale, g.scale};
#pragma unroll
  for (int r = 0; r < R; ++r) store(sums[r], factors, dq, own.sequence + own.begin + own.first_of_warp + 16 * r, end, own.h, 0, 16 * steps);
}

constexpr int dkv_queries = 64;

// How a block that owns `keys` keys divides its work among warps: tiles of scores into 2 × num_warps/2 parts of 32 queries by part_keys
// keys, and dk and dv into parts of 32 keys by 16·part_steps columns.
template <int steps, int keys, int num_warps>
struct KeyWork {
  static constexpr int part_keys = keys / (num_warps / 2), key_parts = keys / 32, column_parts = num_warps / key_parts,
                       part_steps = (steps + column_parts - 1) / column_parts;
  static constexpr bool is_even = part_steps * column_parts == steps;

  static constexpr std::size_t shared_bytes(int query_stages) {
    return Tile<steps>::bytes(2 * keys + (1 + query_stages) * dkv_queries) + 2 * Tile<keys / 16>::bytes(dkv_queries);
  }
};

// What a tile of scores needs of a query. first_seen counts from the block's first key; it is beyond the last key if there is no such
// query.
struct QueryStatistics {
  float lse, delta;
  int first_seen;
};

// Grid: key tiles of a sequence, for each of B·G heads. A block goes in order through the query heads of the group and the queries that may
// see its keys. Warps pass probabilities and dscores to each other through shared memory, in bf16.
template <int steps, int keys_owned, int num_warps, int query_stages>
__global__ void __launch_bounds__(32 * num_warps, 1)
    mma_attention_dkv_kernel(Heads<const Element> dout, Heads<const Element> q, Heads<const Element> k, Heads<const Element> v,
                             const float* lse, const float* delta, Heads<Element> dk, Heads<Element> dv, Geometry g) {
  using Work = KeyWork<steps, keys_owned, num_warps>;
  constexpr int R = 2, num_threads = 32 * num_warps, rows = dkv_queries;
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> keys{shared}, values{keys.at(keys_owned, 0)}, douts{values.at(keys_owned, 0)}, all_queries{douts.at(rows, 0)};
  const Tile<keys_owned / 16> probabilities{all_queries.at(query_stages * rows, 0)}, dscore_tile{probabilities.at(rows, 0)};
  __shared__ QueryStatistics statistics[rows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int T = static_cast<int>(g.T), G = static_cast<int>(g.G), heads_per_group = static_cast<int>(g.H) / G;
  const int key_tiles = (T + keys_owned - 1) / keys_owned, key = static_cast<int>(blockIdx.x % key_tiles) * keys_owned;
  const int b = static_cast<int>(blockIdx.x / key_tiles) / G, group = static_cast<int>(blockIdx.x / key_tiles) % G;
  const std::int64_t sequence = b * g.T;
  const int key_end = smaller(key + keys_owned, T);
  const int tiles_per_head = (g.end_of_seers(sequence, key, key_end) - key + rows - 1) / rows, num_tiles = tiles_per_head * heads_per_group;
  const auto head_of = [&](int tile) { return group * heads_per_group + tile / tiles_per_head; };
  const auto query_of = [&](int tile) { return key + tile % tiles_per_head * rows; };

  const auto load_queries = [&](int tile, int stage) {
    const Tile<steps> queries{all_queries.at(stage * rows, 0)};
    queries.template load<rows, num_threads>(q, sequence + query_of(tile), sequence + g.T, head_of(tile));
  };
  const auto load_douts = [&](int tile) {
    douts.template load<rows, num_threads>(dout, sequence + query_of(tile), sequence + g.T, head_of(tile));
  };
  const auto statistics_of = [&](int tile) -> QueryStatistics {
    const int n = query_of(tile) + static_cast<int>(threadIdx.x);
    if (n >= T) return {0, 0, keys_owned};
    const std::int64_t i = (b * g.H + head_of(tile)) * g.T + n;
    return {lse[i] * log2_e, delta[i], g.first_position(sequence, n) - key};
  };

  keys.template load<keys_owned, num_threads>(k, sequence + key, sequence + key_end, group);
  values.template load<keys_owned, num_threads>(v, sequence + key, sequence + key_end, group);
  load_queries(0, 0);
  load_douts(0);
  commit_copies();
  if (threadIdx.x < rows) statistics[threadIdx.x] = statistics_of(0);

  const int part_row = warp % 2 * 32, part_key = warp / 2 * Work::part_keys;  // of the scores
  const int own_key = warp % Work::key_parts * 32, own_step = warp / Work::key_parts * Work::part_steps;
  const Scores scale(g);
  float dkeys[R][2 * Work::part_steps][4] = {}, dvalues[R][2 * Work::part_steps][4] = {};
  int stage = 0;
  for (int tile = 0; tile < num_tiles; ++tile) {
    const Tile<steps> queries{all_queries.at(stage * rows, 0)};
    const bool has_next = tile + 1 < num_tiles;
    stage = query_stages - 1 - stage;
    wait_for_copies<0>();
    __syncthreads();  // queries, douts and statistics have arrived, and all threads have read the dscores of the previous tile
    if (query_stages == 2 && has_next) {
      load_queries(tile + 1, stage);
      commit_copies();
    }
    QueryStatistics next{};
    if (threadIdx.x < rows && has_next) next = statistics_of(tile + 1);
    {
      float scores[R][Work::part_keys / 8][4], dscores[R][Work::part_keys / 8][4];
      multiply_rows(queries, part_row, keys, part_key, scores);
      multiply_rows(douts, part_row, values, part_key, dscores);
      float lses[R][2], deltas[R][2];
      Columns seen[R][2];
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = part_row + 16 * r + 8 * half + lane / 4;
          lses[r][half] = statistics[row].lse;
          deltas[r][half] = statistics[row].delta;
          seen[r][half] = {statistics[row].first_seen - part_key, query_of(tile) + row - key - part_key};
        }
      differentiate(scale, lses, deltas, seen, scores, dscores);
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int j = 0; j < Work::part_keys / 8; ++j)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = part_row + 16 * r + 8 * half + lane / 4, col = part_key + column_of(j, 0);
            *reinterpret_cast<std::uint32_t*>(probabilities.at(row, col)) = pack(scores[r][j][2 * half], scores[r][j][2 * half + 1]);
            *reinterpret_cast<std::uint32_t*>(dscore_tile.at(row, col)) = pack(dscores[r][j][2 * half], dscores[r][j][2 * half + 1]);
          }
    }
    __syncthreads();  // all threads have written probabilities and dscores and read the statistics
    if (threadIdx.x < rows && has_next) statistics[threadIdx.x] = next;
    multiply_add_transposed<rows, Work::is_even>(probabilities, own_key, douts, own_step, dvalues);
    __syncthreads();  // all threads have read the douts
    if (has_next) {
      load_douts(tile + 1);
      commit_copies();
    }
    multiply_add_transposed<rows, Work::is_even>(dscore_tile, own_key, queries, own_step, dkeys);
    if (query_stages == 1) {
      __syncthreads();  // all threads have read the queries
      if (has_next) {
        load_queries(tile + 1, stage);
        commit_copies();
      }
    }
  }
  wait_for_copies<0>();
  const float scales[2] = {g.scale, g.scale}, ones[2] = {1, 1};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const std::int64_t first = sequence + key + own_key + 16 * r;
    store(dkeys[r], scales, dk, first, sequence + key_end, group, 16 * own_step, 16 * steps);
    store(dvalues[r], ones, dv, first, sequence + key_end, group, 16 * own_step, 16 * steps);
  }
}

}  // namespace

bool mma_attention_applies(const Context& context, std::initializer_list<const Tensor*> tensors, std::int64_t D, double scale) {
  if (scale <= 0) return false;
  if (D != 64 && D != 80 && D != 96 && D != 128 && D != 256) return false;
  if (D == 256 && context.max_shared_bytes() < KeyWork<16, 64, 8>::shared_bytes(1) + dkv_queries * sizeof(QueryStatistics)) return false;
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* t) {
    return t->dtype == Dtype::bf16 && t->row_stride % Tile<4>::chunk == 0 && reinterpret_cast<std::uintptr_t>(t->data) % 16 == 0;
  });
}

void mma_attention_backward(Context& context, const MmaBackwardInputs& from, const AttentionGradients& gradients, const Geometry& g,
                            std::size_t shared_limit) {
  const auto dout = heads<const Element>(from.dout), q = heads<const Element>(from.inputs.q);
  const auto k = heads<const Element>(from.inputs.k), v = heads<const Element>(from.inputs.v);
  const float *const lse = from.lse.as<const float>(), *const delta = from.delta;
  with_steps(g.D, [&](auto steps) {
    constexpr int n = decltype(steps)::value, R = row_tiles<n>, rows = owned_queries<R>, key_stages = n <= 8 ? 2 : 1;
    launch(context, mma_attention_dq_kernel<n, R, key_stages>, grid_of(g, g.H, rows), threads_of_queries,
           Tile<n>::bytes(2 * rows + (1 + key_stages) * dq_keys), dout, q, k, v, lse, delta, heads<Element>(gradients.dq), g);
    const auto launch_dkv = [&](auto keys_tag, auto warps_tag, auto stages_tag) {
      constexpr int keys = decltype(keys_tag)::value, warps = decltype(warps_tag)::value, stages = decltype(stages_tag)::value;
      launch(context, mma_attention_dkv_kernel<n, keys, warps, stages>, grid_of(g, g.G, keys), 32 * warps,
             KeyWork<n, keys, warps>::shared_bytes(stages), dout, q, k, v, lse, delta, heads<Element>(gradients.dk),
             heads<Element>(gradients.dv), g);
    };
    constexpr auto one = std::integral_constant<int, 1>{};
    constexpr auto two = std::integral_constant<int, 2>{};
    if constexpr (n > 8)
      launch_dkv(std::integral_constant<int, 64>{}, std::integral_constant<int, 8>{}, one);
    else if (KeyWork<n, 128, 8>::shared_bytes(2) + dkv_queries * sizeof(QueryStatistics) <= shared_limit)
      launch_dkv(std::integral_constant<int, 128>{}, std::integral_constant<int, 8>{}, two);
    else
      launch_dkv(std::integral_constant<int, 64>{}, std::integral_constant<int, 4>{}, one);
  });
}

}  // namespace mst::cuda
