// See all_to_all.h.
#include "all_to_all.h"

#include "../cpu/context.h"

namespace mst {

void check_all_to_all(const Tensor& x, const Tensor& y, const RankRange& ranks) {
  MST_CHECK(x.is_contiguous() && y.is_contiguous(), "all_to_all: x ", x, " and y ", y, " must be without gaps");
  MST_CHECK(x.dtype == Dtype::f32 || x.dtype == Dtype::bf16 || x.dtype == Dtype::f64, "all_to_all: x ", x, " must be of a floating dtype");
  MST_CHECK(x.dtype == y.dtype && x.rows() == y.rows() && x.cols() == y.cols(), "all_to_all: x ", x, " and y ", y, " differ");
  MST_CHECK(ranks.first >= 0 && ranks.size > 0 && x.rows() % ranks.size == 0, "all_to_all: x ", x, " has no equal parts for ranks ",
            ranks.first, " to ", ranks.first + ranks.size - 1);
}

void cpu::all_to_all(cpu::Context& context, const Tensor& x, const Tensor& y, const RankRange& ranks) {
  check_all_to_all(x, y, ranks);
  context.group().all_to_all(x, y, static_cast<int>(ranks.first), static_cast<int>(ranks.size));
}

}  // namespace mst
