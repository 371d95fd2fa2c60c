// cuBLASLt's matrix products, planned once for each kind.
//
// A row-major matrix is a column-major one with rows and columns exchanged, so c = op(a) op(b) is computed as cᵀ = op(b)ᵀ op(a)ᵀ: our b is
// cuBLASLt's A, and no data is transposed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../../runtime/tensor.h"
#include "../libraries/cublaslt.h"
#include "../stream.h"
#include "tuning.h"

namespace mst::cuda {

// Everything that a plan depends on: c (m,n) = alpha · op(a) · op(b) + beta · c, op(a) (m,k). Strides count elements from one stored row to
// the next. Alignments are the largest powers of two up to 256 that divide the addresses.
struct ProductKind {
  std::int64_t m, n, k, a_stride, b_stride, c_stride;
  bool transpose_a, transpose_b, has_beta;
  Dtype dtype, c_dtype;
  unsigned a_alignment, b_alignment, c_alignment;
  std::size_t workspace_bytes;

  auto tie() const {
    return std::tie(m, n, k, a_stride, b_stride, c_stride, transpose_a, transpose_b, has_beta, dtype, c_dtype, a_alignment, b_alignment,
                    c_alignment, workspace_bytes);
  }
  friend bool operator<(const ProductKind& x, const ProductKind& y) {
    return x.tie() < y.tie();
  }
};

// The memory of one product.
struct ProductOperands {
  const void *a, *b;
  void *c, *workspace;
};

class CublasLtProducts {
 public:
  // tuning_directory: see tuning.h. The library's handle is made at the first product.
  CublasLtProducts(const Stream& stream, int device, std::string tuning_directory);
  ~CublasLtProducts();
  CublasLtProducts(const CublasLtProducts&) = delete;
  CublasLtProducts& operator=(const CublasLtProducts&) = delete;

  void multiply(const ProductKind& kind, const ProductOperands& operands, float alpha, float beta);

 private:
  // Descriptors and the algorithm of one kind of product.
  struct Plan {
    void *desc = nullptr, *a = nullptr, *b = nullptr, *c = nullptr;
    CublasLtAlgorithm algorithm{};
  };

  void load();
  const Plan& find_plan(const ProductKind& kind, const ProductOperands& operands);
  Plan make_plan(const ProductKind& kind) const;
  CublasLtAlgorithm choose_algorithm(const Plan& plan, const ProductKind& kind, const ProductOperands& operands);
  CublasLtAlgorithm fastest(const Plan& plan, const ProductKind& kind, const ProductOperands& operands,
                            const std::vector<CublasLtHeuristic>& candidates) const;
  std::vector<CublasLtHeuristic> candidates_for(const Plan& plan, const ProductKind& kind) const;
  int run(const Plan& plan, const CublasLtAlgorithm& algorithm, const ProductKind& kind, const ProductOperands& on, float alpha,
          float beta) const;
  void destroy(const Plan& plan) const;
  void check(int status, const char* call) const;

  const Stream& stream_;
  int device_;
  std::string tuning_directory_;
  const CublasLt* library_ = nullptr;  // this and the next two are set at the first product
  void* handle_ = nullptr;
  std::optional<Tuning> tuning_;
  std::map<ProductKind, Plan> plans_;
};

}  // namespace mst::cuda
