// The matrix product without cuBLASLt; see cuda/own_matmul.h. A block computes one tile of c and goes through k in steps, with the tiles
// of a and b of several steps on their way to shared memory while the tensor cores work on one; a warp owns a part of the tile.
#include "../cuda/own_matmul.h"

#include "../cuda/mma.h"

namespace mst::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int chunk = 8;  // elements of 16 bytes, what a copy moves

// A matrix as it is stored.
template <class T>
struct Matrix {
  const T* data;
  std::int64_t rows, cols, stride;
};

template <class T>
Matrix<T> matrix(const Tensor& tensor) {
  return {tensor.as<const T>(), tensor.rows(), tensor.cols(), tensor.row_stride};
}

// (rows, cols) elements in shared memory, cols a power of two and at least 32. The chunks of a row change places with its number, so
// that the same chunk of eight rows, which ldmatrix reads at once, lies in eight different groups of banks.
template <int rows, int cols>
struct Tile {
  static constexpr int size = rows * cols, row_chunks = cols / chunk;
  Element* data;

  __device__ Element* at(int row, int col) const {
    const int spread = row_chunks >= 8 ? row % 8 : row / (8 / row_chunks) % row_chunks;
    return data + row * cols + (col / chunk ^ spread) * chunk + col % chunk;
  }

  // Begins to load what lies at (row, col) of a matrix, zeros where it ends. aligned: its rows begin at multiples of 16 bytes.
  template <bool aligned, int num_threads>
  __device__ void load(const Matrix<Element>& from, std::int64_t first_row, std::int64_t first_col) const {
#pragma unroll
    for (int i = threadIdx.x; i < rows * row_chunks; i += num_threads) {
      const int row = i / row_chunks, col = i % row_chunks * chunk;
      const std::int64_t left = first_row + row < from.rows ? from.cols - (first_col + col) : 0;
      const int count = left <= 0 ? 0 : left < chunk ? static_cast<int>(left) : chunk;
      const Element* const source = count > 0 ? from.data + (first_row + row) * from.stride + first_col + col : from.data;
      Element* const to = at(row, col);
      if (aligned && count % chunk == 0) {
        copy_async(to, source, count * static_cast<int>(sizeof(Element)));
      } else {  // what is left of a row too: nothing is read beyond it
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

// c ← alpha · sum + beta · c for two neighbours in a row, the second if it is there.
template <class C>
__device__ void store(C* c, float first, float second, bool has_second, float alpha, float beta) {
  first *= alpha;
  second *= alpha;
  if (beta != 0) {
    first += beta * to_float(c[0]);
    if (has_second) second += beta * to_float(c[1]);
  }
  c[0] = from_float<C>(first);
  if (has_second) c[1] = from_float<C>(second);
}

// Rows of tiles that are computed together: their blocks share tiles of b in the L2 cache.
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

// Tiles of M x N, K elements of k a step, in warps of 64 x 64 or, for small products, of 32 x 32.
template <int M_, int N_, int warp_tile_, int stages_>
struct Shape {
  static constexpr int M = M_, N = N_, K = 32, warp_tile = warp_tile_, stages = stages_;
  static constexpr int warps_down = M / warp_tile, num_threads = M / warp_tile * (N / warp_tile) * 32;
  static constexpr std::size_t shared_bytes = std::size_t(stages) * (M + N) * K * sizeof(Element);
};

template <class S, class C, bool transpose_a, bool transpose_b, bool aligned>
__global__ void __launch_bounds__(S::num_threads) mma_matmul_kernel(Product p, C* c, std::int64_t c_stride) {
  using TileA = std::conditional_t<transpose_a, Tile<S::K, S::M>, Tile<S::M, S::K>>;
  using TileB = std::conditional_t<transpose_b, Tile<S::N, S::K>, Tile<S::K, S::N>>;
  DYNAMIC_SHARED(Element, shared);
  const auto tile_a = [&](int stage) { return TileA{shared + stage * (TileA::size + TileB::size)}; };
  const auto tile_b = [&](int stage) { return TileB{shared + stage * (TileA::size + TileB::size) + TileA::size}; };
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Place place = Place::of(blockIdx.x, (p.m + S::M - 1) / S::M, (p.n + S::N - 1) / S::N);
  const std::int64_t first_row = place.row * S::M, first_col = place.col * S::N, num_steps = (p.k + S::K - 1) / S::K;
  const int warp_row = warp % S::warps_down * S::warp_tile, warp_col = warp / S::warps_down * S::warp_tile;

  const auto load = [&](std::int64_t step) {
    const int stage = static_cast<int>(step % S::stages);
    const std::int64_t at = step * S::K;
    tile_a(stage).template load<aligned, S::num_threads>(p.a, transpose_a ? at : first_row, transpose_a ? first_row : at);
    tile_b(stage).template load<aligned, S::num_threads>(p.b, transpose_b ? first_col : at, transpose_b ? at : first_col);
  };
  for (int step = 0; step < S::stages - 1; ++step) {
    if (step < num_steps) load(step);
    commit_copies();
  }

  constexpr int m_tiles = S::warp_tile / 16, n_tiles = S::warp_tile / 8;
  float sums[m_tiles][n_tiles][4] = {};
  for (std::int64_t step = 0; step < num_steps; ++step) {
    wait_for_copies<S::stages - 2>();
    __syncthreads();  // this step's tiles are there, and those of the step before have been read
    if (step + S::stages - 1 < num_steps) load(step + S::stages - 1);
    commit_copies();
    const TileA a = tile_a(static_cast<int>(step % S::stages));
    const TileB b = tile_b(static_cast<int>(step % S::stages));
#pragma unroll
    for (int k = 0; k < S::K; k += 16) {
      std::uint32_t left[m_tiles][4], right[n_tiles / 2][4];
      const int row = lane % 16, col = lane / 16 * 8, matrix_row = lane / 16 * 8 + lane % 8, matrix_col = lane / 8 % 2 * 8;
#pragma unroll
      for (int i = 0; i < m_tiles; ++i) {
        if constexpr (transpose_a)
          load_matrices_transposed(left[i], a.at(k + matrix_row, warp_row + 16 * i + matrix_col));
        else
          load_matrices(left[i], a.at(warp_row + 16 * i + row, k + col));
      }
#pragma unroll
      for (int j = 0; j < n_tiles / 2; ++j) {
        if constexpr (transpose_b)
          load_matrices(right[j], b.at(warp_col + 16 * j + matrix_row, k + matrix_col));
        else
          load_matrices_transposed(right[j], b.at(k + row, warp_col + 16 * j + col));
      }
#pragma unroll
      for (int i = 0; i < m_tiles; ++i)
#pragma unroll
        for (int j = 0; j < n_tiles; ++j) mma(sums[i][j], left[i], {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]});
    }
  }
  wait_for_copies<0>();

#pragma unroll
  for (int i = 0; i < m_tiles; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = first_row + warp_row + 16 * i + 8 * half + lane / 4;
      if (row >= p.m) continue;
#pragma unroll
      for (int j = 0; j < n_tiles; ++j) {
        const std::int64_t col = first_col + warp_col + 8 * j + lane % 4 * 2;
        if (col < p.n) store(c + row * c_stride + col, sums[i][j][2 * half], sums[i][j][2 * half + 1], col + 1 < p.n, p.alpha, p.beta);
      }
    }
}

constexpr int plain_tile = 64, plain_k = 16, plain_threads = 256, plain_own = 4;  // a thread owns 4 x 4 elements of c

// f32. Grid: tiles of c.
__global__ void __launch_bounds__(plain_threads)
    plain_matmul_kernel(Matrix<float> a, Matrix<float> b, float* c, std::int64_t c_stride, std::int64_t m, std::int64_t n, std::int64_t k,
                        bool transpose_a, bool transpose_b, float alpha, float beta) {
  __shared__ float tile_a[plain_k][plain_tile + 1], tile_b[plain_k][plain_tile + 1];
  const Place place = Place::of(blockIdx.x, (m + plain_tile - 1) / plain_tile, (n + plain_tile - 1) / plain_tile);
  const std::int64_t first_row = place.row * plain_tile, first_col = place.col * plain_tile;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float sums[plain_own][plain_own] = {};
  for (std::int64_t at = 0; at < k; at += plain_k) {
    for (int i = threadIdx.x; i < plain_k * plain_tile; i += plain_threads) {
      // neighbours in memory by neighbouring threads
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
      if (row < m && col < n) store(c + row * c_stride + col, sums[i][j], 0, false, alpha, beta);
    }
}

thread_local bool is_used = false;

bool is_aligned(const Tensor& tensor) {
  return (tensor.rows() == 1 || tensor.row_stride % chunk == 0) && reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0;
}

unsigned tiles(std::int64_t m, std::int64_t n, int rows, int cols) {
  return static_cast<unsigned>((m + rows - 1) / rows * ((n + cols - 1) / cols));
}

// Calls function(std::bool_constant<…>…) with its arguments.
template <class Function>
void with_flags(bool x, bool y, bool z, const Function& function) {
  const auto with = [](bool flag, const auto& next) { flag ? next(std::true_type{}) : next(std::false_type{}); };
  with(x, [&](auto first) { with(y, [&](auto second) { with(z, [&](auto third) { function(first, second, third); }); }); });
}

template <class S, class C>
void launch_mma(const Product& p, const Tensor& c, bool transpose_a, bool transpose_b, bool aligned) {
  with_flags(transpose_a, transpose_b, aligned, [&](auto a, auto b, auto fast) {
    launch(mma_matmul_kernel<S, C, decltype(a)::value, decltype(b)::value, decltype(fast)::value>, tiles(p.m, p.n, S::M, S::N),
           S::num_threads, S::shared_bytes, p, c.as<C>(), c.row_stride);
  });
}

}  // namespace

void use_own_products(bool use) {
  is_used = use;
}
bool uses_own_products() {
  return is_used;
}

void own_matmul(const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double alpha, double beta) {
  using Large = Shape<128, 256, 64, 4>;
  using Small = Shape<64, 64, 32, 4>;
  constexpr unsigned num_tiles_for_large = 64;  // fewer leave most of a GPU idle
  const std::int64_t m = c.rows(), n = c.cols(), k = transpose_a ? a.rows() : a.cols();
  const auto factor = static_cast<float>(alpha), old = static_cast<float>(beta);
  if (a.dtype == Dtype::f32) {
    launch(plain_matmul_kernel, tiles(m, n, plain_tile, plain_tile), plain_threads, 0, matrix<float>(a), matrix<float>(b), c.as<float>(),
           c.row_stride, m, n, k, transpose_a, transpose_b, factor, old);
    return;
  }
  const Product p{matrix<Element>(a), matrix<Element>(b), m, n, k, factor, old};
  const bool aligned = is_aligned(a) && is_aligned(b), large = tiles(m, n, Large::M, Large::N) >= num_tiles_for_large;
  const auto run = [&](auto type) {
    using C = typename decltype(type)::type;
    if (large)
      launch_mma<Large, C>(p, c, transpose_a, transpose_b, aligned);
    else
      launch_mma<Small, C>(p, c, transpose_a, transpose_b, aligned);
  };
  with_cuda_float("matmul", c.dtype, run);
}

}  // namespace mst::cuda
