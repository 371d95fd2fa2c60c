// Products grouped by expert; see grouped_matmul.h. A grid has as many blocks as any routing needs; each finds its expert and tile from the
// offsets, and those that are left over return.
#include "grouped_matmul.h"

#include "../cuda/matmul/own_tile.h"

namespace mst::cuda {
namespace {

struct Group {
  const std::int32_t* offsets;
  std::int64_t E;
};

// Where a block works: tile `block` of the product of an expert with the rows [begin, end). expert E: nowhere.
struct Work {
  std::int64_t expert, begin, end, block;
};

// Of grouped_matmul: experts have as many blocks as their rows need, tile_cols for each `tile_rows` of them.
__device__ inline Work work_of_rows(const Group& group, std::int64_t tile_rows, std::int64_t tile_cols) {
  std::int64_t block = blockIdx.x;
  for (std::int64_t e = 0; e < group.E; ++e) {
    const std::int64_t begin = group.offsets[e], end = group.offsets[e + 1];
    const std::int64_t own = (end - begin + tile_rows - 1) / tile_rows * tile_cols;
    if (block < own) return {e, begin, end, block};
    block -= own;
  }
  return {group.E, 0, 0, 0};
}

// Of grouped_matmul_weights: every expert has as many blocks.
__device__ inline Work work_of_weights(const Group& group, std::int64_t blocks) {
  const std::int64_t e = blockIdx.x / blocks;
  return {e, group.offsets[e], group.offsets[e + 1], blockIdx.x % blocks};
}

// Rows [begin, end) of a matrix.
template <class T>
__device__ inline Matrix<T> rows_of(const Matrix<T>& all, std::int64_t begin, std::int64_t end) {
  return {all.data + begin * all.stride, end - begin, all.cols, all.stride};
}

// The product of one block's expert: a and b hold all experts'.
template <bool of_weights, class P>
__device__ inline P product_of(P p, const Work& work, std::int64_t b_rows) {
  p.a = rows_of(p.a, work.begin, work.end);
  p.b = of_weights ? rows_of(p.b, work.begin, work.end) : rows_of(p.b, work.expert * b_rows, (work.expert + 1) * b_rows);
  (of_weights ? p.k : p.m) = work.end - work.begin;
  return p;
}

template <bool of_weights, class P>
__device__ inline Work work_of(const Group& group, const P& p, int tile_rows, int tile_cols) {
  const std::int64_t cols = (p.n + tile_cols - 1) / tile_cols;
  return of_weights ? work_of_weights(group, (p.m + tile_rows - 1) / tile_rows * cols) : work_of_rows(group, tile_rows, cols);
}

template <class S, class C, bool of_weights, bool transpose_b, bool aligned>
__global__ void __launch_bounds__(S::num_threads, S::blocks)
    grouped_mma_kernel(Product all, C* c, std::int64_t c_stride, Group group, std::int64_t b_rows) {
  DYNAMIC_SHARED(Element, shared);
  const Work work = work_of<of_weights>(group, all, S::M, S::N);
  if (work.expert == group.E) return;
  const Product p = product_of<of_weights>(all, work, b_rows);
  C* const to = c + (of_weights ? work.expert * p.m : work.begin) * c_stride;
  mma_matmul_tile<S, C, of_weights, transpose_b, aligned>(p, to, c_stride, work.block, shared);
}

template <bool of_weights>
__global__ void __launch_bounds__(plain_threads) grouped_plain_kernel(PlainProduct all, Output c, Group group, std::int64_t b_rows) {
  const Work work = work_of<of_weights>(group, all, plain_tile, plain_tile);
  if (work.expert == group.E) return;
  const PlainProduct p = product_of<of_weights>(all, work, b_rows);
  plain_matmul_tile(p, {c.data + (of_weights ? work.expert * p.m : work.begin) * c.stride, c.stride}, work.block);
}

struct Operands {
  const Tensor &a, &b, &c, &offsets;
};

// Blocks for any routing: all rows in whole tiles, and one tile more for each expert.
template <bool of_weights>
unsigned blocks_of(const GroupedSizes& sizes, int tile_rows, int tile_cols) {
  const auto [E, m, n, k] = sizes;
  if (of_weights) return static_cast<unsigned>(E) * tiles(m, n, tile_rows, tile_cols);
  const std::int64_t with_rows = E < m ? E : m;  // every expert with rows may have a tile that is not whole
  return tiles((m / tile_rows + with_rows) * tile_rows, n, tile_rows, tile_cols);
}

template <bool of_weights, bool transpose_b, class S, class C>
void launch_mma(Context& context, const Product& p, const Operands& operands, const GroupedSizes& sizes, std::int64_t b_rows) {
  const auto& [a, b, c, offsets] = operands;
  const Group group{offsets.as<const std::int32_t>(), sizes.E};
  const auto run = [&](auto aligned) {
    launch(context, grouped_mma_kernel<S, C, of_weights, transpose_b, decltype(aligned)::value>, blocks_of<of_weights>(sizes, S::M, S::N),
           S::num_threads, S::shared_bytes, p, c.as<C>(), c.row_stride, group, b_rows);
  };
  if (is_aligned(a) && is_aligned(b))
    run(std::true_type{});
  else
    run(std::false_type{});
}

template <bool of_weights, bool transpose_b>
void multiply(Context& context, const Operands& operands, const GroupedSizes& sizes, std::int64_t b_rows, double beta) {
  const auto& [a, b, c, offsets] = operands;
  const auto [E, m, n, k] = sizes;
  if (m == 0 || n == 0) return;
  const auto old = static_cast<float>(beta);
  if (a.dtype == Dtype::f32) {
    const PlainProduct p{matrix<float>(a), matrix<float>(b), m, n, k, of_weights, transpose_b, 1, old};
    const Group group{offsets.as<const std::int32_t>(), E};
    MST_CHECK(c.dtype == Dtype::f32, "grouped_matmul: c ", c, " cannot hold a product of ", a);
    launch(context, grouped_plain_kernel<of_weights>, blocks_of<of_weights>(sizes, plain_tile, plain_tile), plain_threads, 0, p,
           Output{c.as<float>(), c.row_stride}, group, b_rows);
    return;
  }
  const Product p{matrix<Element>(a), matrix<Element>(b), m, n, k, 1, old};
  const std::int64_t num_tiles = of_weights ? E * tiles(m, n, LargeTile::M, LargeTile::N) : tiles(m, n, LargeTile::M, LargeTile::N);
  // Large tiles also need experts with many rows, on average.
  const bool large = num_tiles >= num_tiles_for_large && (of_weights ? k : m) >= E * LargeTile::M;
  const auto run = [&](auto type) {
    using C = typename decltype(type)::type;
    if (large)
      launch_mma<of_weights, transpose_b, LargeTile, C>(context, p, operands, sizes, b_rows);
    else
      launch_mma<of_weights, transpose_b, SmallTile, C>(context, p, operands, sizes, b_rows);
  };
  with_cuda_float("grouped_matmul", c.dtype, run);
}

}  // namespace

void grouped_matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, const Workspace&,
                    bool transpose_b) {
  const GroupedSizes sizes = check_grouped_matmul(a, b, c, offsets, transpose_b);
  const std::int64_t b_rows = transpose_b ? sizes.n : sizes.k;
  (transpose_b ? multiply<false, true> : multiply<false, false>)(context, {a, b, c, offsets}, sizes, b_rows, 0);
}

void grouped_matmul_weights(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, const Workspace&,
                            double beta) {
  const GroupedSizes sizes = check_grouped_matmul_weights(a, b, c, offsets, beta);
  multiply<true, false>(context, {a, b, c, offsets}, sizes, 0, beta);
}

}  // namespace mst::cuda
