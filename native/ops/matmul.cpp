// The matrix product on the CPU: oneDNN for f32 and bf16, a plain loop for f64; see matmul.h.
#include "matmul.h"

#include <algorithm>

#include "../cpu/context.h"
#include "../cpu/parallel.h"
#include "../cpu/products.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

Strides strides_of(const Tensor& tensor, bool transposed) {
  return transposed ? Strides{1, tensor.row_stride} : Strides{tensor.row_stride, 1};
}

Product product_of(const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double alpha, double beta) {
  const std::int64_t m = transpose_a ? a.cols() : a.rows(), k = transpose_a ? a.rows() : a.cols();
  const std::int64_t n = transpose_b ? b.rows() : b.cols(), b_k = transpose_b ? b.cols() : b.rows();
  MST_CHECK(k == b_k, "matmul: inner sizes ", k, " of a ", a, " and ", b_k, " of b ", b, " differ");
  MST_CHECK(c.rows() == m && c.cols() == n, "matmul: c ", c, " must be (", m, ",", n, ")");
  MST_CHECK(a.dtype == b.dtype, "matmul: a is ", name_of(a.dtype), ", b is ", name_of(b.dtype));
  MST_CHECK(c.dtype == a.dtype || (a.dtype == Dtype::bf16 && c.dtype == Dtype::f32), "matmul: c ", c, " cannot hold a product of ", a);
  return {m, n, k, strides_of(a, transpose_a), strides_of(b, transpose_b), c.row_stride, a.dtype, c.dtype, float(alpha), float(beta)};
}

// The largest number of rows of c for which oneDNN computes the product within the workspace; 0 if there is none. If the rows of a bf16 c
// are not contiguous (views of some columns), oneDNN uses an implementation that keeps an f32 copy of c.
std::int64_t rows_that_fit(Products& products, const Product& product, std::size_t workspace_bytes) {
  const Primitive* const whole = products.find(product);
  if (!whole) return 0;
  if (whole->scratchpad.get_size() <= workspace_bytes) return product.m;
  constexpr std::int64_t granularity = 16, least = 32;
  const double share = static_cast<double>(workspace_bytes) / static_cast<double>(whole->scratchpad.get_size());
  Product part = product;
  part.m = static_cast<std::int64_t>(share * static_cast<double>(product.m)) / granularity * granularity;
  if (part.m < least) return 0;
  const Primitive* const primitive = products.find(part);
  return primitive && primitive->scratchpad.get_size() <= workspace_bytes ? part.m : 0;
}

// For bf16, if oneDNN has no bf16 product that fits the workspace: blocks are widened to f32 in the workspace.
void widened_product(const Product& p, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace) {
  constexpr std::int64_t block_m = 256, block_n = 512, block_k = 256;
  constexpr std::size_t needed = (block_m * block_k + block_k * block_n + block_m * block_n) * sizeof(float);
  MST_CHECK(workspace.bytes >= needed, "matmul: workspace has ", workspace.bytes, " bytes, needs ", needed);
  float* const a_block = static_cast<float*>(workspace.data);
  float* const b_block = a_block + block_m * block_k;
  float* const c_block = b_block + block_k * block_n;
  const auto widen = [](const Tensor& from, Strides strides, std::int64_t i0, std::int64_t j0, std::int64_t rows, std::int64_t cols,
                        float* to) {
    parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t j = 0; j < cols; ++j) to[i * cols + j] = from.as<bf16>()[(i0 + i) * strides.row + (j0 + j) * strides.col];
    });
  };
  const auto store = [&](auto tag, std::int64_t i0, std::int64_t j0, std::int64_t rows, std::int64_t cols) {
    using T = typename decltype(tag)::type;
    for (std::int64_t i = 0; i < rows; ++i) {
      T* const to = c.row<T>(i0 + i) + j0;
      for (std::int64_t j = 0; j < cols; ++j)
        to[j] = T(p.alpha * c_block[i * cols + j] + (p.beta == 0 ? 0.0f : p.beta * static_cast<float>(to[j])));
    }
  };
  for (std::int64_t i = 0; i < p.m; i += block_m) {
    for (std::int64_t j = 0; j < p.n; j += block_n) {
      const std::int64_t rows = std::min(block_m, p.m - i), cols = std::min(block_n, p.n - j);
      for (std::int64_t l = 0; l < p.k; l += block_k) {
        const std::int64_t depth = std::min(block_k, p.k - l);
        widen(a, p.a, i, l, rows, depth, a_block);
        widen(b, p.b, l, j, depth, cols, b_block);
        dnnl_sgemm('N', 'N', rows, cols, depth, 1.0f, a_block, depth, b_block, cols, l == 0 ? 0.0f : 1.0f, c_block, cols);
      }
      if (p.c_dtype == Dtype::f32)
        store(type_tag<float>{}, i, j, rows, cols);
      else
        store(type_tag<bf16>{}, i, j, rows, cols);
    }
  }
}

// For f64, which oneDNN does not have: row i of c, summed in the order of k.
MST_CLONES void f64_row(const Product& p, const double* a, const double* b, double* c, double alpha, double beta) {
  for (std::int64_t j = 0; j < p.n; ++j) c[j] = beta == 0 ? 0 : beta * c[j];
  for (std::int64_t l = 0; l < p.k; ++l) {
    const double factor = alpha * a[l * p.a.col];
    const double* const row = b + l * p.b.row;
    if (p.b.col == 1) {
      for (std::int64_t j = 0; j < p.n; ++j) c[j] += factor * row[j];
    } else {
      for (std::int64_t j = 0; j < p.n; ++j) c[j] += factor * row[j * p.b.col];
    }
  }
}

}  // namespace

void matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, const Workspace& workspace, bool transpose_a,
            bool transpose_b, double alpha, double beta) {
  Product p = product_of(a, b, c, transpose_a, transpose_b, alpha, beta);
  if (p.m == 0 || p.n == 0) return;
  if (p.dtype == Dtype::f64) {
    return parallel_for(p.m, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) f64_row(p, a.as<double>() + i * p.a.row, b.as<double>(), c.row<double>(i), alpha, beta);
    });
  }
  if (p.k == 0) {
    MST_CHECK(c.dtype == Dtype::f32 || beta == 0 || beta == 1, "matmul: k is 0, so beta ", beta, " must be 0 or 1, or c float32, got c ",
              c);
    for (std::int64_t i = 0; beta != 1 && i < p.m; ++i)
      for (std::int64_t j = 0; j < p.n; ++j) {
        if (c.dtype == Dtype::f32)
          c.row<float>(i)[j] = beta == 0 ? 0.0f : p.beta * c.row<float>(i)[j];
        else
          c.row<bf16>(i)[j] = bf16(0.0f);
      }
    return;
  }
  Products& products = context.products();
  const std::int64_t block = rows_that_fit(products, p, workspace.bytes);
  if (block == 0 && p.dtype == Dtype::bf16) return widened_product(p, a, b, c, workspace);
  MST_CHECK(block > 0, "matmul: oneDNN has no product of ", a, " and ", b, " on this CPU within ", workspace.bytes, " bytes of workspace");
  const std::int64_t a_bytes = p.a.row * static_cast<std::int64_t>(size_of(a.dtype)),
                     c_bytes = p.c_stride * static_cast<std::int64_t>(size_of(c.dtype));
  for (std::int64_t i = 0; i < p.m; i += block) {
    Product part = p;
    part.m = std::min(block, p.m - i);
    products.execute(*products.find(part), static_cast<char*>(a.data) + i * a_bytes, b.data, static_cast<char*>(c.data) + i * c_bytes,
                     workspace.data);
  }
}

std::string matmul_implementation(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b,
                                  double alpha, double beta) {
  const Primitive* const primitive = context.products().find(product_of(a, b, c, transpose_a, transpose_b, alpha, beta));
  return primitive ? primitive->implementation : "";
}

}  // namespace mst::cpu
