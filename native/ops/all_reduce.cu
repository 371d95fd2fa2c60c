// See all_reduce.h.
#include "all_reduce.h"

#include "../cuda/context.h"

namespace mst::cuda {

void all_reduce(Context& context, const Tensor& x) {
  check_all_reduce(x);
  context.group().all_reduce(x);
}

}  // namespace mst::cuda
