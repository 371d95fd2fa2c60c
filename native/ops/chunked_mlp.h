// The gated MLP as a mini-sequence op: y = (act(x·gateᵀ) * (x·upᵀ)) · downᵀ, over chunks of M rows of x, so that the (N,F) intermediates
// exist for one chunk at a time. Runs on any device: these are loops over other ops. x (N,C); gate, up (F,C); down (C,F); y (N,C). M is the
// number of rows of h and dh; the last chunk may be shorter. If up's rows follow gate's in memory, one product computes both.
#pragma once

#include "glu.h"
#include "low_rank.h"

namespace mst {

struct MlpWeights {
  Tensor gate, up, down;

  static constexpr std::tuple fields{Field{"gate", &MlpWeights::gate}, Field{"up", &MlpWeights::up}, Field{"down", &MlpWeights::down}};
};

// Optional low-rank adapters of the projections; their gradients accumulate. The weights are then usually frozen. The operations and memory
// of an adapter grow with its rank only.
struct MlpAdapters {
  OptionalLowRank gate, up, down;
  OptionalTensor scratch;  // x's dtype, 2·M·(largest rank) elements, with dropout M·max(C,F) more; absent without adapters
  Dropout dropout;         // of all three

  static constexpr std::tuple fields{Field{"gate", &MlpAdapters::gate}, Field{"up", &MlpAdapters::up}, Field{"down", &MlpAdapters::down},
                                     Field{"scratch", &MlpAdapters::scratch, 's'}, Field{"dropout", &MlpAdapters::dropout}};
};

// The memory of a weight's gradient. overwrite: it holds garbage and is assigned; otherwise the gradient is added to it.
struct WeightGradient {
  Tensor gradient;
  bool overwrite;

  static constexpr std::tuple fields{Field{"gradient", &WeightGradient::gradient}, Field{"overwrite", &WeightGradient::overwrite}};
  char access() const {
    return overwrite ? 'w' : 'u';
  }
};

// Absent ones are skipped.
struct MlpGradients {
  OptionalTensor dx;  // may be x, not dy
  std::optional<WeightGradient> dgate, dup, ddown;

  static constexpr std::tuple fields{Field{"dx", &MlpGradients::dx, 'w'}, Field{"dgate", &MlpGradients::dgate},
                                     Field{"dup", &MlpGradients::dup}, Field{"ddown", &MlpGradients::ddown}};
};

// gate and up: (M,2F) workspace, or (N,2F) if the forward keeps them for the backward (save: 'gateUp').
struct GateUp {
  Tensor memory;
  bool is_kept;

  static constexpr std::tuple fields{Field{"memory", &GateUp::memory}, Field{"isKept", &GateUp::is_kept}};
};

// y = MLP(x). h (M,F): workspace. gate_up is assigned if it is kept.
void chunked_mlp_forward(Context& context, const Tensor& x, const MlpWeights& weights, const Tensor& y, const GateUp& gate_up,
                         const Tensor& h, const Workspace& matmul_workspace, Activation activation, const MlpAdapters& adapters);

// Assigns dx (N,C); it may be x, since each chunk of x is read before that of dx is written. dgate, dup (F,C) and ddown (C,F) are
// accumulated or assigned, in the compute dtype (f32; f64 for f64). With one chunk they may be bf16, rounded once; with more, every chunk
// would round. gate_up is overwritten if it is kept; otherwise it is recomputed from x for each chunk. The down product is never
// recomputed. dh (M,F): workspace. Operations, in units of 2·N·C·F: 2 to recompute gate and up, then 6; 8 in all, or 6 with kept gate and
// up.
void chunked_mlp_backward(Context& context, const Tensor& dy, const Tensor& x, const MlpWeights& weights, const MlpGradients& gradients,
                          const GateUp& gate_up, const Tensor& dh, const Workspace& matmul_workspace, Activation activation,
                          const MlpAdapters& adapters);

}  // namespace mst
