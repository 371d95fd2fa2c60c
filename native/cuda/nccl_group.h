// GPU ranks, connected by NCCL.
#pragma once

#include <memory>

#include "../runtime/process_group.h"
#include "stream.h"

namespace mst::cuda {

// Collectives run on `stream`, which must outlive the group. Error with the remedy where NCCL cannot be loaded.
std::unique_ptr<ProcessGroup> make_nccl_group(const Rank& rank, const Stream& stream);

}  // namespace mst::cuda
