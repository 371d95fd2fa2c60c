// See reduce_scatter.h.
#include "reduce_scatter.h"

#include "../cuda/context.h"

namespace mst::cuda {

void reduce_scatter(Context& context, const Tensor& x, std::int64_t part) {
  check_parts("reduce_scatter", x, part, context.group().size());
  context.group().reduce_scatter(x, part);
}

void all_gather(Context& context, const Tensor& x, std::int64_t part) {
  check_parts("all_gather", x, part, context.group().size());
  context.group().all_gather(x, part);
}

}  // namespace mst::cuda
