// See all_reduce.h.
#include "all_reduce.h"

#include "../cpu/context.h"

namespace mst {

void check_all_reduce(const Tensor& x) {
  MST_CHECK(x.is_contiguous(), "all_reduce: x ", x, " must be without gaps");
  MST_CHECK(x.dtype == Dtype::f32 || x.dtype == Dtype::bf16 || x.dtype == Dtype::f64, "all_reduce: x ", x, " must be of a floating dtype");
}

void cpu::all_reduce(cpu::Context& context, const Tensor& x) {
  check_all_reduce(x);
  context.group().all_reduce(x);
}

}  // namespace mst
