// The matrix product on CUDA: cuBLASLt when available, otherwise our kernels; see matmul.h.
#include "matmul.h"

#include "../cuda/context.h"
#include "../cuda/matmul/cublaslt_products.h"
#include "elementwise.h"
#include "own_matmul.h"

namespace mst::cuda {
namespace {

// The largest power of two up to 256 that divides the address.
unsigned alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  unsigned alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

// A matrix of one row may have any stride, but cuBLASLt requires at least the row's length.
std::int64_t stride_of(const Tensor& tensor) {
  return tensor.rows() == 1 ? tensor.cols() : tensor.row_stride;
}

}  // namespace

void matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a,
            bool transpose_b, double alpha, double beta) {
  const std::int64_t m = transpose_a ? a.cols() : a.rows(), k = transpose_a ? a.rows() : a.cols();
  const std::int64_t n = transpose_b ? b.rows() : b.cols(), b_k = transpose_b ? b.cols() : b.rows();
  MST_CHECK(k == b_k, "matmul: inner sizes ", k, " of a ", a, " and ", b_k, " of b ", b, " differ");
  MST_CHECK(c.rows() == m && c.cols() == n, "matmul: c ", c, " must be (", m, ",", n, ")");
  MST_CHECK(a.dtype == b.dtype, "matmul: a is ", name_of(a.dtype), ", b is ", name_of(b.dtype));
  MST_CHECK(c.dtype == a.dtype || (a.dtype == Dtype::bf16 && c.dtype == Dtype::f32), "matmul: c ", c, " cannot hold a product of ", a);
  if (m == 0 || n == 0) return;
  if (k == 0) return beta == 0 ? fill(context, c, 0) : scale(context, c, c, beta);
  CublasLtProducts* const products = context.cublaslt_products();
  if (!products) return own_matmul(context, a, b, c, transpose_a, transpose_b, alpha, beta);
  const ProductKind kind{
      m,         n,       k,       stride_of(a),         stride_of(b),         stride_of(c),         transpose_a,    transpose_b,
      beta != 0, a.dtype, c.dtype, alignment_of(a.data), alignment_of(b.data), alignment_of(c.data), workspace.bytes};
  products->multiply(kind, {a.data, b.data, c.data, workspace.data}, static_cast<float>(alpha), static_cast<float>(beta));
}

}  // namespace mst::cuda
