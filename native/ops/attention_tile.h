// Tiles of bf16 rows in shared memory, and a warp's products with them, for attention on tensor cores. A warp owns R·16 rows of a product:
// each fragment of the right operand is read once for R products.
#pragma once

#include "../cuda/common/mma.h"
#include "attention_heads.h"

namespace mst::cuda {

// Rows of 16·steps elements, with a pitch that spreads them over the memory banks.
template <int steps>
struct Tile {
  static constexpr int D = 16 * steps, chunk = 8, pitch = D + chunk;  // a chunk is 16 bytes: what one copy moves
  __nv_bfloat16* data;

  static constexpr std::size_t bytes(int rows) {
    return static_cast<std::size_t>(rows) * pitch * sizeof(__nv_bfloat16);
  }

  __device__ __nv_bfloat16* at(int row, int col) const {
    return data + row * pitch + col;
  }

  // Starts to copy rows [first, first + rows) of a head. Rows from `end` on become zero.
  template <int rows, int num_threads>
  __device__ void load(const Heads<const __nv_bfloat16>& from, std::int64_t first, std::int64_t end, std::int64_t head) const {
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
  // Fragment a of the transposed tile: its rows are columns [col, col + 16) of this one, its columns rows [row, row + 16).
  __device__ void left_transposed(std::uint32_t (&a)[4], int row, int col) const {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    load_matrices_transposed(a, at(row + matrix / 2 * 8 + lane % 8, col + matrix % 2 * 8));
  }
  // Fragments b of rows [row, row + 16), columns [16·step, …).
  __device__ void right(std::uint32_t (&b)[2][2], int row, int step) const {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    std::uint32_t r[4];
    load_matrices_transposed(r, at(row + matrix % 2 * 8 + lane % 8, step * 16 + matrix / 2 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
  // Fragments b of the transposed tile: its columns are rows [row, row + 16) of this one, its rows columns [16·step, …).
  __device__ void right_transposed(std::uint32_t (&b)[2][2], int row, int step) const {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    std::uint32_t r[4];
    load_matrices(r, at(row + matrix / 2 * 8 + lane % 8, step * 16 + matrix % 2 * 8));
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  }
};

// sums (16·R, 8·J) = rows [a_row, …) of a · transposed rows [b_row, …) of b
template <int steps, int R, int J>
__device__ void multiply_rows(const Tile<steps>& a, int a_row, const Tile<steps>& b, int b_row, float (&sums)[R][J][4]) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][j][i] = 0;
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    std::uint32_t left[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) a.left(left[r], a_row + 16 * r, step);
#pragma unroll
    for (int j = 0; j < J / 2; ++j) {
      std::uint32_t right[2][2];
      b.right_transposed(right, b_row + 16 * j, step);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(sums[r][2 * j], left[r], right[0]);
        mma(sums[r][2 * j + 1], left[r], right[1]);
      }
    }
  }
}

// sums (16·R, D) += weights (16·R, 8·J), rounded to bf16, · rows [0, 8·J) of b
template <int steps, int R, int J>
__device__ void multiply_add(const float (&weights)[R][J][4], const Tile<steps>& b, float (&sums)[R][2 * steps][4]) {
#pragma unroll
  for (int j = 0; j < J / 2; ++j) {
    std::uint32_t left[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float(&w)[4] = weights[r][2 * j];
      const float(&x)[4] = weights[r][2 * j + 1];
      left[r][0] = pack(w[0], w[1]), left[r][1] = pack(w[2], w[3]), left[r][2] = pack(x[0], x[1]), left[r][3] = pack(x[2], x[3]);
    }
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t right[2][2];
      b.right(right, 16 * j, step);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(sums[r][2 * step], left[r], right[0]);
        mma(sums[r][2 * step + 1], left[r], right[1]);
      }
    }
  }
}

// sums (16·R, 8·J) += transposed columns [a_col, …) of rows [0, rows) of a · the same rows of b, columns [16·first_step, …). Columns beyond
// b's last are skipped, unless is_even says that there are none.
template <int rows, bool is_even, int a_steps, int steps, int R, int J>
__device__ void multiply_add_transposed(const Tile<a_steps>& a, int a_col, const Tile<steps>& b, int first_step, float (&sums)[R][J][4]) {
#pragma unroll
  for (int row = 0; row < rows; row += 16) {
    std::uint32_t left[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) a.left_transposed(left[r], row, a_col + 16 * r);
#pragma unroll
    for (int j = 0; j < J / 2; ++j) {
      if (!is_even && first_step + j >= steps) break;
      std::uint32_t right[2][2];
      b.right(right, row, first_step + j);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(sums[r][2 * j], left[r], right[0]);
        mma(sums[r][2 * j + 1], left[r], right[1]);
      }
    }
  }
}

// Writes 16 rows, each times its factor, from row `first` and column `col` on. Skips rows from `end` on and columns from D on.
template <int J>
__device__ void store(const float (&sums)[J][4], const float (&factors)[2], const Heads<__nv_bfloat16>& to, std::int64_t first,
                      std::int64_t end, std::int64_t head, int col, int D) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t n = first + lane / 4 + 8 * half;
    if (n >= end) continue;
    __nv_bfloat16* const row = to.row(n, head, D) + col;
#pragma unroll
    for (int j = 0; j < J; ++j)
      if (col + 8 * j < D)
        *reinterpret_cast<std::uint32_t*>(row + 8 * j + lane % 4 * 2) =
            pack(sums[j][2 * half] * factors[half], sums[j][2 * half + 1] * factors[half]);
  }
}

// Columns [first, last] of a tile.
struct Columns {
  int first, last;

  __device__ bool have(int column) const {
    return column >= first && column <= last;
  }
  __device__ bool have_all(int columns) const {
    return first <= 0 && last >= columns - 1;
  }
};

// The column of element i of part j of a product, relative to the product's first column.
__device__ inline int column_of(int j, int i) {
  return 8 * j + threadIdx.x % 4 * 2 + i % 2;
}

}  // namespace mst::cuda
