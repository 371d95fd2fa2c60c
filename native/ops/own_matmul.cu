// Our matrix product; see own_matmul.h and ../cuda/matmul/own_tile.h.
#include "own_matmul.h"

#include "../cuda/matmul/own_tile.h"

namespace mst::cuda {
namespace {

template <class S, class C, bool transpose_a, bool transpose_b, bool aligned>
__global__ void __launch_bounds__(S::num_threads, S::blocks) mma_matmul_kernel(Product p, C* c, std::int64_t c_stride) {
  DYNAMIC_SHARED(Element, shared);
  mma_matmul_tile<S, C, transpose_a, transpose_b, aligned>(p, c, c_stride, blockIdx.x, shared);
}

// f32. Grid: tiles of c.
__global__ void __launch_bounds__(plain_threads) plain_matmul_kernel(PlainProduct p, Output c) {
  plain_matmul_tile(p, c, blockIdx.x);
}

// Calls function(std::bool_constant<…>…) with its arguments.
template <class Function>
void with_flags(bool x, bool y, bool z, const Function& function) {
  const auto with = [](bool flag, const auto& next) { flag ? next(std::true_type{}) : next(std::false_type{}); };
  with(x, [&](auto first) { with(y, [&](auto second) { with(z, [&](auto third) { function(first, second, third); }); }); });
}

template <class S, class C>
void launch_mma(Context& context, const Product& p, const Tensor& c, bool transpose_a, bool transpose_b, bool aligned) {
  with_flags(transpose_a, transpose_b, aligned, [&](auto a, auto b, auto fast) {
    launch(context, mma_matmul_kernel<S, C, decltype(a)::value, decltype(b)::value, decltype(fast)::value>, tiles(p.m, p.n, S::M, S::N),
           S::num_threads, S::shared_bytes, p, c.as<C>(), c.row_stride);
  });
}

}  // namespace

void own_matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double alpha,
                double beta) {
  const std::int64_t m = c.rows(), n = c.cols(), k = transpose_a ? a.rows() : a.cols();
  const auto factor = static_cast<float>(alpha), old = static_cast<float>(beta);
  if (a.dtype == Dtype::f32) {
    const PlainProduct p{matrix<float>(a), matrix<float>(b), m, n, k, transpose_a, transpose_b, factor, old};
    launch(context, plain_matmul_kernel, tiles(m, n, plain_tile, plain_tile), plain_threads, 0, p, Output{c.as<float>(), c.row_stride});
    return;
  }
  const Product p{matrix<Element>(a), matrix<Element>(b), m, n, k, factor, old};
  const bool aligned = is_aligned(a) && is_aligned(b), large = tiles(m, n, LargeTile::M, LargeTile::N) >= num_tiles_for_large;
  const auto run = [&](auto type) {
    using C = typename decltype(type)::type;
    if (large)
      launch_mma<LargeTile, C>(context, p, c, transpose_a, transpose_b, aligned);
    else
      launch_mma<SmallTile, C>(context, p, c, transpose_a, transpose_b, aligned);
  };
  with_cuda_float("matmul", c.dtype, run);
}

}  // namespace mst::cuda
