// See reduce_scatter.h.
#include "reduce_scatter.h"

#include "../cpu/context.h"

namespace mst {

void check_parts(const char* op, const Tensor& x, std::int64_t part, int size) {
  MST_CHECK(x.is_contiguous(), op, ": x ", x, " must be without gaps");
  MST_CHECK(x.dtype == Dtype::f32 || x.dtype == Dtype::bf16 || x.dtype == Dtype::f64, op, ": x ", x, " must be of a floating dtype");
  MST_CHECK(part > 0 && part <= x.size() && (x.size() - 1) / part < size, op, ": ", size, " parts of ", part, " elements are not those of ",
            x);
}

void cpu::reduce_scatter(cpu::Context& context, const Tensor& x, std::int64_t part) {
  check_parts("reduce_scatter", x, part, context.group().size());
  context.group().reduce_scatter(x, part);
}

void cpu::all_gather(cpu::Context& context, const Tensor& x, std::int64_t part) {
  check_parts("all_gather", x, part, context.group().size());
  context.group().all_gather(x, part);
}

}  // namespace mst
