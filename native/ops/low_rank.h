// Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) of the projections inside a mini-sequence op.
#pragma once

#include <optional>

#include "dropout.h"

namespace mst {

// z (M,O) = x (M,I) · weightᵀ + scale · (dropout(x) · aᵀ) · bᵀ, with a (r,I) and b (O,r) in x's dtype.
struct LowRank {
  Tensor a, b;
  OptionalTensor da, db;  // += in the compute dtype, or bf16 with one chunk; absent: not wanted, or a forward
  double scale;
  std::int64_t op;  // the number of its dropout

  static constexpr std::tuple fields{Field{"a", &LowRank::a, 'r'},   Field{"b", &LowRank::b, 'r'},    Field{"da", &LowRank::da, 'u'},
                                     Field{"db", &LowRank::db, 'u'}, Field{"scale", &LowRank::scale}, Field{"op", &LowRank::op}};
};
using OptionalLowRank = std::optional<LowRank>;

// Scratch memory that the adapters of an op share: twice (M,r) for the largest r, and with dropout (M,I) for the largest I.
struct LowRankScratch {
  OptionalTensor memory;  // rank 1, x's dtype
  std::int64_t M, max_rank;

  Tensor product(int which, std::int64_t rows, std::int64_t r) const;  // which: 0 or 1
  Tensor dropped(std::int64_t rows, std::int64_t cols) const;

 private:
  Tensor part(std::int64_t begin, std::int64_t rows, std::int64_t cols) const;
};

// z += scale · (dropout(x) · aᵀ) · bᵀ. first_row: the index of x's first row in the whole input.
void low_rank_forward(Context& context, const Tensor& x, const LowRank& adapter, const Tensor& z, std::int64_t first_row,
                      const Dropout& dropout, const LowRankScratch& scratch, const Workspace& matmul_workspace);

// With du = scale · dz · b:
//   low_rank_backward_input     dx += dropout(du · a)
//   low_rank_backward_weights   da += duᵀ · dropout(x);  db += dzᵀ · scale · dropout(x) · aᵀ
void low_rank_backward_input(Context& context, const Tensor& dz, const LowRank& adapter, const Tensor& dx, std::int64_t first_row,
                             const Dropout& dropout, const LowRankScratch& scratch, const Workspace& matmul_workspace);
void low_rank_backward_weights(Context& context, const Tensor& dz, const Tensor& x, const LowRank& adapter, std::int64_t first_row,
                               const Dropout& dropout, const LowRankScratch& scratch, const Workspace& matmul_workspace);

}  // namespace mst
