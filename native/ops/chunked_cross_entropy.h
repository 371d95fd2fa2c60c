// Language-model head and cross-entropy as one mini-sequence op: over chunks of M rows, so that the (N,V) logits exist for one chunk at a
// time. The same pass computes the gradients, with 6·N·C·V operations in all: nothing is recomputed. Runs on any device.
#pragma once

#include "cross_entropy.h"

namespace mst {

// An optional low-rank part of the head: logits = hidden · weightᵀ + low (N,r) · weight (V,r)ᵀ.
struct LowRankHead {
  Tensor low, weight;

  static constexpr std::tuple fields{Field{"low", &LowRankHead::low}, Field{"weight", &LowRankHead::weight}};
};
struct Head {
  Tensor weight;  // (V,C)
  std::optional<LowRankHead> low_rank = {};

  static constexpr std::tuple fields{Field{"weight", &Head::weight}, Field{"lowRank", &Head::low_rank}};
};

// dhidden (N,C) = scale * dlogits · weight and dweight (V,C) = scale * dlogitsᵀ · hidden; dlow (N,r) and dlow_weight (V,r) in the same way.
// Gradients of weights are in the compute dtype, or bf16 if there is one chunk. Absent ones are skipped; if all are absent, only losses are
// computed. dlogits itself is not scaled: scale (1 / divisor) is the alpha of the products.
struct HeadGradients {
  double scale = 1;
  OptionalTensor dhidden = {}, dweight = {}, dlow = {}, dlow_weight = {};

  static constexpr std::tuple fields{Field{"scale", &HeadGradients::scale}, Field{"dhidden", &HeadGradients::dhidden},
                                     Field{"dweight", &HeadGradients::dweight}, Field{"dlow", &HeadGradients::dlow},
                                     Field{"dlowWeight", &HeadGradients::dlow_weight}};
};

// hidden (N,C); targets and outputs (N,), see cross_entropy.h. cross_entropy_sum computes the sum over rows. logits (M, at least V):
// workspace. M is the chunk size; the last chunk may be shorter. Columns beyond V are not touched: they only align the rows for wide loads.
void chunked_cross_entropy(Context& context, const Tensor& hidden, const Head& head, const LossTargets& targets,
                           const TokenOutputs& outputs, const HeadGradients& gradients, const Tensor& logits,
                           const Workspace& matmul_workspace, const LossOptions& options);

}  // namespace mst
