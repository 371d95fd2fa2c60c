// What the forward and the backward of attention on tensor cores share. Scores are in units of log 2, so that exp is one instruction. Tiles
// follow FlashAttention-2 (Dao 2023, arXiv 2307.08691), with 32 rows per warp, so that reads of shared memory do not limit the products.
// Positions are ints that count from the sequence's first row.
#pragma once

#include "../cuda/common/math.h"
#include "attention_tile.h"

namespace mst::cuda {

using Element = __nv_bfloat16;

constexpr float ln_2 = 0.6931471805599453f;

// Maximum and sum over the four lanes that share a row of a fragment.
__device__ inline float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// Turns products q·k into scores in units of log 2: score = factor · capped(product). The scale must be positive.
struct Scores {
  float factor, scale, softcap;

  __device__ explicit Scores(const Geometry& g) : factor((g.softcap > 0 ? 1.0f : g.scale) * log2_e), scale(g.scale), softcap(g.softcap) {}

  __device__ float capped(float product) const {
    return softcap * tanhf(product * scale / softcap);
  }
  // d(capped) / d(product · scale)
  __device__ float slope(float capped) const {
    const float share = capped / softcap;
    return 1.0f - share * share;
  }
  // 2^(score - shift)
  __device__ float exp(float capped, float shift) const {
    return exp2_approximate(capped * factor - shift);
  }
};

__device__ inline int smaller(int a, int b) {
  return a < b ? a : b;
}

// The work of a block that owns queries: rows [begin, end) of head h. A warp has R·16 of them; a lane's are row(r, half).
template <int R, int rows>
struct Queries {
  std::int64_t sequence;  // its first row
  int h, group, begin, end, first_of_warp, first_of_lane;
  std::int64_t statistics;  // where the head begins in lse and delta

  __device__ explicit Queries(const Geometry& g) {
    const int tiles = static_cast<int>((g.T + rows - 1) / rows), H = static_cast<int>(g.H);
    const int tile = tiles - 1 - static_cast<int>(blockIdx.x % tiles), b = static_cast<int>(blockIdx.x / tiles) / H;  // most keys first
    h = static_cast<int>(blockIdx.x / tiles) % H;
    group = h / (H / static_cast<int>(g.G));
    sequence = b * g.T;
    statistics = (b * g.H + h) * g.T;
    begin = tile * rows;
    end = smaller(begin + rows, static_cast<int>(g.T));
    first_of_warp = static_cast<int>(threadIdx.x) / 32 * 16 * R;
    first_of_lane = begin + first_of_warp + static_cast<int>(threadIdx.x) % 32 / 4;
  }
  __device__ int row(int r, int half) const {
    return first_of_lane + 16 * r + 8 * half;
  }
  __device__ int row_within(int r, int half) const {
    return smaller(row(r, half), end - 1);
  }
  // The columns that the lane's row sees in the tile whose first key is `key`.
  __device__ Columns seen(int first_key, int r, int half, int key) const {
    return {first_key - key, row(r, half) - key};
  }
};

constexpr int warps_of_queries = 4, threads_of_queries = 32 * warps_of_queries;

template <int R>
constexpr int owned_queries = 16 * R* warps_of_queries;

// The number of blocks if each has `rows` rows of one sequence and one of `heads` heads.
inline unsigned grid_of(const Geometry& g, std::int64_t heads, int rows) {
  return static_cast<unsigned>((g.T + rows - 1) / rows * (g.N / g.T) * heads);
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
    case 128:
      return function(std::integral_constant<int, 8>{});
    default:
      return function(std::integral_constant<int, 16>{});
  }
}

// Rows of a warp, in units of 16: as many as the registers allow beside the sums of that head size.
template <int steps>
constexpr int row_tiles = steps <= 8 ? 2 : 1;

}  // namespace mst::cuda
