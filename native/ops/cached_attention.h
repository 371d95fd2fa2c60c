// Attention of new tokens to all before them, whose keys and values are kept: for generation. Forward only.
#pragma once

#include "attention.h"

namespace mst {

inline constexpr std::int64_t max_cached_head_size = 512;

// out (N,H·D) = softmax(scores) · v for the queries q (N,H·D) at positions [position, position + N) of one sequence, against k and v
// (T,G·D) of which rows [0, position + N) are filled. Who sees whom, and scores: as in attention.h; there is no document_start.
// D <= max_cached_head_size.
KERNEL(cached_attention, const AttentionInputs& inputs, const Tensor& out, std::int64_t position, const AttentionOptions& options);

// The geometry of the kept sequence. Throws where operands do not go together.
AttentionGeometry check_cached_attention(const AttentionInputs& inputs, const Tensor& out, std::int64_t position,
                                         const AttentionOptions& options);

}  // namespace mst
