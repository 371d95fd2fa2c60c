// One tile of our matrix product, for kernels of one product (own_matmul.cu) and of many (grouped_matmul.cu). A block computes one tile of
// c and goes through k in steps. While its tensor cores work on one step, the tiles of a and b of several later steps are copied to shared
// memory. A warp owns a part of the tile.
#pragma once

#include "../common/mma.h"

namespace mst::cuda {

using Element = __nv_bfloat16;

constexpr int chunk = 8;  // elements per 16 bytes, which one copy moves

// A matrix as stored.
template <class T>
struct Matrix {
  const T* data;
  std::int64_t rows, cols, stride;
};

template <class T>
Matrix<T> matrix(const Tensor& tensor) {
  return {tensor.as<const T>(), tensor.rows(), tensor.cols(), tensor.row_stride};
}

// A tile of (rows, cols) elements in shared memory; cols is a power of two and at least 32. The order of a row's chunks depends on the
// row's number, so that the same chunk of eight rows, which ldmatrix reads at once, is in eight different groups of banks.
template <int rows, int cols>
struct Tile {
  static constexpr int size = rows * cols, row_chunks = cols / chunk;
  Element* data;

  __device__ static int index(int row, int col) {
    const int spread = row_chunks >= 8 ? row % 8 : row / (8 / row_chunks) % row_chunks;
    return row * cols + (col / chunk ^ spread) * chunk + col % chunk;
  }
  // The element `down` rows below and `along` columns after that of an index. down must be a multiple of 8, and the index's column must
  // have no bit in common with `along`.
  __device__ Element* after(int index, int down, int along) const {
    return data + (index ^ along) + down * cols;
  }

  // The first element of the matrix in the thread's share of the tile at (row, col).
  __device__ static const Element* own(const Matrix<Element>& from, std::int64_t row, std::int64_t col) {
    return from.data + (row + threadIdx.x / row_chunks) * from.stride + col + threadIdx.x % row_chunks * chunk;
  }
  // Starts to copy a part of the thread's share, which must lie within the matrix.
  template <int num_threads, int parts>
  __device__ void load(const Element* own, std::int64_t stride, int part) const {
    constexpr int rows_at_once = num_threads / row_chunks, count = rows / rows_at_once / parts;
    static_assert(num_threads % row_chunks == 0 && count * parts * rows_at_once == rows);
    const int row = threadIdx.x / row_chunks, col = threadIdx.x % row_chunks * chunk;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int down = (i * parts + part) * rows_at_once;
      copy_async(data + index(row + down, col), own + down * stride, chunk * sizeof(Element));
    }
  }

  // Starts to load the tile at (row, col) of a matrix, with zeros beyond the matrix. aligned: its rows begin at multiples of 16 bytes.
  template <bool aligned, int num_threads>
  __device__ void load_checked(const Matrix<Element>& from, std::int64_t first_row, std::int64_t first_col) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * row_chunks; i += num_threads) {
      const int row = i / row_chunks, col = i % row_chunks * chunk;
      const std::int64_t left = first_row + row < from.rows ? from.cols - (first_col + col) : 0;
      const int count = left <= 0 ? 0 : left < chunk ? static_cast<int>(left) : chunk;
      const Element* const source = count > 0 ? from.data + (first_row + row) * from.stride + first_col + col : from.data;
      Element* const to = data + index(row, col);
      if (aligned && count % chunk == 0) {
        copy_async(to, source, count * static_cast<int>(sizeof(Element)));
      } else {  // also the end of a row: nothing beyond it is read
#pragma unroll
        for (int j = 0; j < chunk; ++j) to[j] = j < count ? source[j] : __float2bfloat16_rn(0);
      }
    }
  }
};

struct Product {
  Matrix<Element> a, b;  // as stored
  std::int64_t m, n, k;
  float alpha, beta;
};

// Two neighbours in a row of c, loaded and stored together.
template <class C>
struct alignas(2 * sizeof(C)) Pair {
  C first, second;
};

// c ← alpha · sum + beta · c
template <class C>
__device__ void store(C* c, float sum, float alpha, float beta) {
  *c = from_float<C>(beta != 0 ? alpha * sum + beta * to_float(*c) : alpha * sum);
}

// Rows of tiles that are computed together: their blocks share tiles of b in L2.
constexpr int rows_together = 8;

struct Place {
  std::int64_t row, col;

  __device__ static Place of(std::int64_t block, std::int64_t tile_rows, std::int64_t tile_cols) {
    const std::int64_t strip = block / (rows_together * tile_cols), first = strip * rows_together;
    const std::int64_t height = tile_rows - first < rows_together ? tile_rows - first : rows_together;
    const std::int64_t within = block - first * tile_cols;
    return {first + within % height, within / height};
  }
};

// Tiles of M x N, K elements of k per step, warps of warp_M x warp_N. blocks: blocks per multiprocessor.
template <int M_, int N_, int K_, int warp_M_, int warp_N_, int stages_, int blocks_>
struct Shape {
  static constexpr int M = M_, N = N_, K = K_, warp_M = warp_M_, warp_N = warp_N_, stages = stages_, blocks = blocks_;
  static constexpr int warps_down = M / warp_M, num_threads = warps_down * (N / warp_N) * 32;
  static constexpr std::size_t shared_bytes = std::size_t(stages) * (M + N) * K * sizeof(Element);
};

// While a warp multiplies the fragments of 16 elements of k, it loads those of the next 16 and starts a part of the copies for a later
// step.
// Computes tile `block` of c; all threads of a block call it. shared: S::shared_bytes of it.
template <class S, class C, bool transpose_a, bool transpose_b, bool aligned>
__device__ inline void mma_matmul_tile(const Product& p, C* c, std::int64_t c_stride, std::int64_t block, Element* shared) {
  using TileA = std::conditional_t<transpose_a, Tile<S::K, S::M>, Tile<S::M, S::K>>;
  using TileB = std::conditional_t<transpose_b, Tile<S::N, S::K>, Tile<S::K, S::N>>;
  constexpr int parts = S::K / 16, m_tiles = S::warp_M / 16, n_tiles = S::warp_N / 8;
  const auto tile_a = [&](int stage) { return TileA{shared + stage * (TileA::size + TileB::size)}; };
  const auto tile_b = [&](int stage) { return TileB{shared + stage * (TileA::size + TileB::size) + TileA::size}; };
  const auto after = [](int stage) { return stage + 1 == S::stages ? 0 : stage + 1; };
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Place place = Place::of(block, (p.m + S::M - 1) / S::M, (p.n + S::N - 1) / S::N);
  const std::int64_t first_row = place.row * S::M, first_col = place.col * S::N;
  const int warp_row = warp % S::warps_down * S::warp_M, warp_col = warp / S::warps_down * S::warp_N;

  const int num_steps = static_cast<int>((p.k + S::K - 1) / S::K);
  const bool is_whole = aligned && first_row + S::M <= p.m && first_col + S::N <= p.n;
  const int whole_steps = is_whole ? static_cast<int>(p.k / S::K) : 0;  // whole steps come first
  const Element* const own_a = TileA::own(p.a, transpose_a ? 0 : first_row, transpose_a ? first_row : 0);
  const Element* const own_b = TileB::own(p.b, transpose_b ? first_col : 0, transpose_b ? 0 : first_col);
  const std::int64_t step_a = transpose_a ? S::K * p.a.stride : S::K, step_b = transpose_b ? S::K : S::K * p.b.stride;
  const auto load = [&](int step, int stage, int part) {
    if (step < whole_steps) {
      tile_a(stage).template load<S::num_threads, parts>(own_a + step * step_a, p.a.stride, part);
      tile_b(stage).template load<S::num_threads, parts>(own_b + step * step_b, p.b.stride, part);
    } else if (part == 0 && step < num_steps) {
      const std::int64_t at = std::int64_t(step) * S::K;
      tile_a(stage).template load_checked<aligned, S::num_threads>(p.a, transpose_a ? at : first_row, transpose_a ? first_row : at);
      tile_b(stage).template load_checked<aligned, S::num_threads>(p.b, transpose_b ? first_col : at, transpose_b ? at : first_col);
    }
  };

  std::uint32_t left[2][m_tiles][4], right[2][n_tiles / 2][4];
  const int row = lane % 16, col = lane / 16 * 8, matrix_row = lane / 16 * 8 + lane % 8, matrix_col = lane / 8 % 2 * 8;
  const int lane_a = transpose_a ? TileA::index(matrix_row, warp_row + matrix_col) : TileA::index(warp_row + row, col);
  const int lane_b = transpose_b ? TileB::index(warp_col + matrix_row, matrix_col) : TileB::index(row, warp_col + col);
  const auto load_fragments = [&](int stage, int part) {
    const TileA a = tile_a(stage);
    const TileB b = tile_b(stage);
    const int k = 16 * part;
#pragma unroll
    for (int i = 0; i < m_tiles; ++i) {
      if constexpr (transpose_a)
        load_matrices_transposed(left[part % 2][i], a.after(lane_a, k, 16 * i));
      else
        load_matrices(left[part % 2][i], a.after(lane_a, 16 * i, k));
    }
#pragma unroll
    for (int j = 0; j < n_tiles / 2; ++j) {
      if constexpr (transpose_b)
        load_matrices(right[part % 2][j], b.after(lane_b, 16 * j, k));
      else
        load_matrices_transposed(right[part % 2][j], b.after(lane_b, k, 16 * j));
    }
  };

#pragma unroll 1
  for (int step = 0; step < S::stages - 1; ++step) {
#pragma unroll
    for (int part = 0; part < parts; ++part) load(step, step, part);
    commit_copies();
  }
  wait_for_copies<S::stages - 2>();
  __syncthreads();  // the first step's tiles are there
  load_fragments(0, 0);
  float sums[m_tiles][n_tiles][4] = {};
  int stage = 0, loaded_stage = S::stages - 1;
#pragma unroll 1
  for (int step = 0; step < num_steps; ++step) {
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      load(step + S::stages - 1, loaded_stage, part);
      if (part == parts - 1) {
        commit_copies();
        wait_for_copies<S::stages - 2>();
        __syncthreads();  // the next step's tiles are there, and this step's have been read
        loaded_stage = stage;
        stage = after(stage);
      }
      load_fragments(stage, (part + 1) % parts);  // not used after the last step
#pragma unroll
      for (int i = 0; i < m_tiles; ++i)
#pragma unroll
        for (int j = 0; j < n_tiles; ++j) {
          const std::uint32_t(&b)[4] = right[part % 2][j / 2];
          mma(sums[i][j], left[part % 2][i], {b[j % 2 * 2], b[j % 2 * 2 + 1]});
        }
    }
  }
  wait_for_copies<0>();

  const bool is_paired = c_stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(c) % sizeof(Pair<C>) == 0;
#pragma unroll
  for (int i = 0; i < m_tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = first_row + warp_row + 16 * i + 8 * half + lane / 4, col = first_col + warp_col + lane % 4 * 2;
      if (row >= p.m) continue;
      C* const to = c + row * c_stride + col;
      if (is_paired && first_col + S::N <= p.n) {
        Pair<C> pairs[n_tiles];
#pragma unroll
        for (int j = 0; j < n_tiles; ++j)
          if (p.beta != 0) pairs[j] = *reinterpret_cast<const Pair<C>*>(to + 8 * j);
#pragma unroll
        for (int j = 0; j < n_tiles; ++j) {
          store(&pairs[j].first, sums[i][j][2 * half], p.alpha, p.beta);
          store(&pairs[j].second, sums[i][j][2 * half + 1], p.alpha, p.beta);
          *reinterpret_cast<Pair<C>*>(to + 8 * j) = pairs[j];
        }
      } else {
#pragma unroll
        for (int j = 0; j < n_tiles; ++j)
#pragma unroll
          for (int each = 0; each < 2; ++each)
            if (col + 8 * j + each < p.n) store(to + 8 * j + each, sums[i][j][2 * half + each], p.alpha, p.beta);
      }
    }
}

constexpr int plain_tile = 64, plain_k = 16, plain_threads = 256, plain_own = 4;  // a thread owns 4 x 4 elements of c

struct Output {
  float* data;
  std::int64_t stride;
};

// The same in f32, with plain_threads threads.
struct PlainProduct {
  Matrix<float> a, b;
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
  float alpha, beta;
};
__device__ inline void plain_matmul_tile(const PlainProduct& p, const Output& c, std::int64_t block) {
  const auto& [a, b, m, n, k, transpose_a, transpose_b, alpha, beta] = p;
  __shared__ float tile_a[plain_k][plain_tile + 1], tile_b[plain_k][plain_tile + 1];
  const Place place = Place::of(block, (m + plain_tile - 1) / plain_tile, (n + plain_tile - 1) / plain_tile);
  const std::int64_t first_row = place.row * plain_tile, first_col = place.col * plain_tile;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float sums[plain_own][plain_own] = {};
  for (std::int64_t at = 0; at < k; at += plain_k) {
    for (int i = threadIdx.x; i < plain_k * plain_tile; i += plain_threads) {
      // neighbouring threads read neighbours in memory
      const int a_k = transpose_a ? i / plain_tile : i % plain_k, a_row = transpose_a ? i % plain_tile : i / plain_k;
      const int b_k = transpose_b ? i % plain_k : i / plain_tile, b_col = transpose_b ? i / plain_k : i % plain_tile;
      const std::int64_t row = first_row + a_row, col = first_col + b_col;
      tile_a[a_k][a_row] = row < m && at + a_k < k ? a.data[transpose_a ? (at + a_k) * a.stride + row : row * a.stride + at + a_k] : 0;
      tile_b[b_k][b_col] = col < n && at + b_k < k ? b.data[transpose_b ? col * b.stride + at + b_k : (at + b_k) * b.stride + col] : 0;
    }
    __syncthreads();
#pragma unroll
    for (int each = 0; each < plain_k; ++each)
#pragma unroll
      for (int i = 0; i < plain_own; ++i)
#pragma unroll
        for (int j = 0; j < plain_own; ++j) sums[i][j] += tile_a[each][y + 16 * i] * tile_b[each][x + 16 * j];
    __syncthreads();
  }
  for (int i = 0; i < plain_own; ++i)
    for (int j = 0; j < plain_own; ++j) {
      const std::int64_t row = first_row + y + 16 * i, col = first_col + x + 16 * j;
      if (row < m && col < n) store(c.data + row * c.stride + col, sums[i][j], alpha, beta);
    }
}

inline bool is_aligned(const Tensor& tensor) {
  return (tensor.rows() == 1 || tensor.row_stride % chunk == 0) && reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0;
}

inline unsigned tiles(std::int64_t m, std::int64_t n, int rows, int cols) {
  return static_cast<unsigned>((m + rows - 1) / rows * ((n + cols - 1) / cols));
}

// For few or many tiles: fewer large ones would leave most of a GPU idle.
using LargeTile = Shape<128, 128, 64, 64, 64, 3, 2>;
using SmallTile = Shape<64, 64, 32, 32, 32, 4, 4>;
constexpr unsigned num_tiles_for_large = 128;

}  // namespace mst::cuda
