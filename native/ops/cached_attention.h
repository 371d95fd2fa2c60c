// Attention of new tokens to the kept keys and values of all tokens up to them, for generation. Forward only.
#pragma once

#include "attention.h"

namespace mst {

inline constexpr std::int64_t max_cached_head_size = 512;

// out (N,H·D) = softmax(scores) · v for queries q (N,H·D) at positions [position, position + N) of one sequence. Of k and v (T,G·D) rows
// [0, position + N) are filled. Scores, and which keys a query sees, are as in attention.h; there is no document_start. D <=
// max_cached_head_size.
KERNEL(cached_attention, const AttentionInputs& inputs, const Tensor& out, std::int64_t position, const AttentionOptions& options);

// Returns the geometry of the kept sequence. Throws if shapes or dtypes of the operands do not match.
AttentionGeometry check_cached_attention(const AttentionInputs& inputs, const Tensor& out, std::int64_t position,
                                         const AttentionOptions& options);

}  // namespace mst
