// Language-model head and cross-entropy as one mini-sequence op, over chunks of M rows, so that the (N,V) logits exist for one chunk
// at a time. The gradients are made in the same pass: 6·N·C·V operations in all, nothing recomputed. Runs on any device.
#pragma once

#include "cross_entropy.h"

namespace mst {

// hidden (N,C), weight (V,C), targets (N,) i32. logits (M, at least V): workspace, its rows are the chunk size; the last chunk may be
// shorter. Columns beyond V are not touched: they serve to begin every row where wide loads can.
// losses, lse, log_probability, entropy, correct, token_weights (N,): see cross_entropy.h; the sum over rows is cross_entropy_sum's.
// dhidden (N,C) = scale * dlogits · weight; absent: skipped (no gradient wanted).
// dweight (V,C) = scale * dlogitsᵀ · hidden, in the compute dtype, or bf16 with one chunk; absent: skipped (frozen head). Both absent:
// only losses are computed.
// The head may have a low-rank part: logits = hidden · weightᵀ + low (N,r) · low_weight (V,r)ᵀ, of which dlow (N,r) and dlow_weight (V,r),
// are made like dhidden and dweight. low and low_weight are absent together.
// dlogits stays unscaled: scale (1 / divisor) is the alpha of both products.
void chunked_cross_entropy(Context& context, const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                           const OptionalTensor& token_weights, const Tensor& losses, const OptionalTensor& lse,
                           const OptionalTensor& log_probability, const OptionalTensor& entropy, const OptionalTensor& correct,
                           const OptionalTensor& dhidden, const OptionalTensor& dweight, const Tensor& logits,
                           const Workspace& matmul_workspace, double scale, std::int64_t ignore_index, double label_smoothing,
                           double z_loss, double softcap, const OptionalTensor& low, const OptionalTensor& low_weight,
                           const OptionalTensor& dlow, const OptionalTensor& dlow_weight);

}  // namespace mst
