// The gated MLP as a mini-sequence op: down( act(x·gateᵀ) * (x·upᵀ) ), over chunks of M rows of x, so that the (N,F) intermediates
// exist for one chunk at a time. Runs on any device: these are loops over other ops.
// x (N,C); gate, up (F,C); down (C,F); y (N,C). M is the number of rows of h and dh; the last chunk may be shorter.
// Where up's rows follow gate's in memory, one product computes both.
#pragma once

#include "glu.h"
#include "low_rank.h"

namespace mst {

struct MlpWeights {
  Tensor gate, up, down;

  static constexpr std::tuple fields{Field{"gate", &MlpWeights::gate}, Field{"up", &MlpWeights::up}, Field{"down", &MlpWeights::down}};
};

// The projections may have low-rank adapters, whose gradients are added; the weights are then usually frozen. They cost operations and
// memory of their rank alone.
struct MlpAdapters {
  OptionalLowRank gate, up, down;
  OptionalTensor scratch;  // x's dtype: 2·M·(largest rank) elements, and with dropout M·max(C,F) more; absent without adapters
  Dropout dropout;         // of all three

  static constexpr std::tuple fields{Field{"gate", &MlpAdapters::gate}, Field{"up", &MlpAdapters::up}, Field{"down", &MlpAdapters::down},
                                     Field{"scratch", &MlpAdapters::scratch, 's'}, Field{"dropout", &MlpAdapters::dropout}};
};

// What the gradient of a weight goes to: overwrite says that the memory is new; otherwise the gradient is added to what it holds.
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
  OptionalTensor dx;  // neither dy nor x
  std::optional<WeightGradient> dgate, dup, ddown;

  static constexpr std::tuple fields{Field{"dx", &MlpGradients::dx, 'w'}, Field{"dgate", &MlpGradients::dgate},
                                     Field{"dup", &MlpGradients::dup}, Field{"ddown", &MlpGradients::ddown}};
};

// (M,2F) workspace, or (N,2F): gate and up of every row, which the forward kept for the backward (save: 'gateUp').
struct GateUp {
  Tensor memory;
  bool is_kept;

  static constexpr std::tuple fields{Field{"memory", &GateUp::memory}, Field{"isKept", &GateUp::is_kept}};
};

// y = MLP(x). h (M,F): workspace. gate_up, where it is kept, is assigned.
void chunked_mlp_forward(Context& context, const Tensor& x, const MlpWeights& weights, const Tensor& y, const GateUp& gate_up,
                         const Tensor& h, const Workspace& matmul_workspace, Activation activation, const MlpAdapters& adapters);

// dx (N,C) =; it may be x itself, whose rows are read before those of dx are written. dgate, dup (F,C) and ddown (C,F) += or = in the
// compute dtype (f32; f64 for f64). With one chunk they may be bf16, rounded once; with more, every chunk would round. gate_up, where it is
// kept, is overwritten; else it is computed again from x for each chunk. The down product is never rerun. dh (M,F): workspace. Operations:
// 2 units of N·C·F recomputed, then 6 (1 unit = 2·N·C·F; 8 in all; 6 with kept gate and up).
void chunked_mlp_backward(Context& context, const Tensor& dy, const Tensor& x, const MlpWeights& weights, const MlpGradients& gradients,
                          const GateUp& gate_up, const Tensor& dh, const Workspace& matmul_workspace, Activation activation,
                          const MlpAdapters& adapters);

}  // namespace mst
