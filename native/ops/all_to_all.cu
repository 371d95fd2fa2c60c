// See all_to_all.h.
#include "all_to_all.h"

#include "../cuda/context.h"

namespace mst::cuda {

void all_to_all(Context& context, const Tensor& x, const Tensor& y, const RankRange& ranks) {
  check_all_to_all(x, y, ranks);
  context.group().all_to_all(x, y, static_cast<int>(ranks.first), static_cast<int>(ranks.size));
}

}  // namespace mst::cuda
