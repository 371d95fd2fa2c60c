// Low-rank adapters; see low_rank.h.
#include "low_rank.h"

#include "dropout.h"
#include "elementwise.h"
#include "matmul.h"

namespace mst {
namespace {

// dropout(x) in scratch memory, or x itself without dropout.
Tensor dropped(Context& context, const Tensor& x, const LowRank& adapter, std::int64_t first_row, const Dropout& with,
               const LowRankScratch& scratch) {
  if (with.probability == 0) return x;
  const Tensor kept = scratch.dropped(x.rows(), x.cols());
  dropout(context, x, kept, with, adapter.op, first_row);
  return kept;
}

}  // namespace

Tensor LowRankScratch::part(std::int64_t begin, std::int64_t rows, std::int64_t cols) const {
  MST_CHECK(memory && begin + rows * cols <= memory->size(), "low_rank: scratch ends before element ", begin + rows * cols);
  Tensor view = *memory;
  view.data = static_cast<char*>(memory->data) + begin * static_cast<std::int64_t>(size_of(memory->dtype));
  view.rank = 2;
  view.shape = {rows, cols};
  view.row_stride = cols;
  return view;
}

Tensor LowRankScratch::product(int which, std::int64_t rows, std::int64_t r) const {
  return part(which * M * max_rank, rows, r);
}

Tensor LowRankScratch::dropped(std::int64_t rows, std::int64_t cols) const {
  return part(2 * M * max_rank, rows, cols);
}

void low_rank_forward(Context& context, const Tensor& x, const LowRank& adapter, const Tensor& z, std::int64_t first_row,
                      const Dropout& dropout, const LowRankScratch& scratch, const Workspace& matmul_workspace) {
  const Tensor u = scratch.product(0, x.rows(), adapter.a.rows());
  matmul(context, dropped(context, x, adapter, first_row, dropout, scratch), adapter.a, u, matmul_workspace, false, true, adapter.scale, 0);
  matmul(context, u, adapter.b, z, matmul_workspace, false, true, 1, 1);
}

void low_rank_backward_input(Context& context, const Tensor& dz, const LowRank& adapter, const Tensor& dx, std::int64_t first_row,
                             const Dropout& with, const LowRankScratch& scratch, const Workspace& matmul_workspace) {
  const Tensor du = scratch.product(1, dz.rows(), adapter.a.rows());
  matmul(context, dz, adapter.b, du, matmul_workspace, false, false, adapter.scale, 0);
  if (with.probability == 0) return matmul(context, du, adapter.a, dx, matmul_workspace, false, false, 1, 1);
  const Tensor through = scratch.dropped(dx.rows(), dx.cols());
  matmul(context, du, adapter.a, through, matmul_workspace, false, false, 1, 0);
  dropout(context, through, through, with, adapter.op, first_row);
  add(context, dx, through, dx);
}

void low_rank_backward_weights(Context& context, const Tensor& dz, const Tensor& x, const LowRank& adapter, std::int64_t first_row,
                               const Dropout& dropout, const LowRankScratch& scratch, const Workspace& matmul_workspace) {
  const std::int64_t r = adapter.a.rows();
  const Tensor kept = dropped(context, x, adapter, first_row, dropout, scratch);
  if (adapter.db) {
    const Tensor u = scratch.product(0, x.rows(), r);
    matmul(context, kept, adapter.a, u, matmul_workspace, false, true, adapter.scale, 0);
    matmul(context, dz, u, *adapter.db, matmul_workspace, true, false, 1, 1);
  }
  if (adapter.da) {
    const Tensor du = scratch.product(1, x.rows(), r);
    matmul(context, dz, adapter.b, du, matmul_workspace, false, false, adapter.scale, 0);
    matmul(context, du, kept, *adapter.da, matmul_workspace, true, false, 1, 1);
  }
}

}  // namespace mst
