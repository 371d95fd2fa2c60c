// CPU ranks, connected by Gloo.
#pragma once

#include <memory>

#include "../runtime/process_group.h"

namespace mst::cpu {

// Loads libminisequence_gloo.so, which lies beside the addon. Error with the remedy where it cannot be loaded.
std::unique_ptr<ProcessGroup> make_gloo_group(const Rank& rank);

}  // namespace mst::cpu
