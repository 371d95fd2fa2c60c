// A mixture of experts as a mini-sequence op. A router takes k of E gated MLPs for each token: y = Σ_j w_j · MLP_{e_j}(x), where e_j are
// the k most probable experts of softmax(x·routerᵀ), and w_j their probabilities. Chunks of M tokens: their M·k rows are sorted by expert,
// multiplied by group, and summed for each token. No token is dropped, and memory does not depend on the routing. Runs on any device:
// these are loops over other ops. The chunk's M is the number of rows of `probabilities`; the last chunk may be shorter.
#pragma once

#include "chunked_mlp.h"

namespace mst {

// router (E,C); gate_up (E·2F,C): for each expert the rows of gate, then those of up; down (E·C,F).
struct ExpertWeights {
  Tensor router, gate_up, down;

  static constexpr std::tuple fields{Field{"router", &ExpertWeights::router}, Field{"gateUp", &ExpertWeights::gate_up},
                                     Field{"down", &ExpertWeights::down}};
};

// Absent ones are skipped. Those of weights are as in chunked_mlp.h, of the shapes of ExpertWeights.
struct ExpertGradients {
  OptionalTensor dx;  // may be x, not dy
  std::optional<WeightGradient> drouter, dgate_up, ddown;

  static constexpr std::tuple fields{Field{"dx", &ExpertGradients::dx, 'w'}, Field{"drouter", &ExpertGradients::drouter},
                                     Field{"dgateUp", &ExpertGradients::dgate_up}, Field{"ddown", &ExpertGradients::ddown}};
};

// Workspace for M tokens, R = M·k rows. dweights, drows and dh: for the backward alone.
struct ExpertScratch {
  Tensor logits;            // (M,E), x's dtype
  Tensor probabilities;     // (M,E), compute dtype
  Tensor weights;           // (M,k), compute dtype
  Tensor experts;           // (M,k) i32
  Tensor offsets;           // (E+1,) i32
  Tensor order, places;     // (R,) i32
  Tensor rows;              // (R,C), x's dtype
  Tensor gate_up;           // (R,2F), x's dtype
  OptionalTensor dweights;  // (M,k), compute dtype
  OptionalTensor drows;     // (R,C), x's dtype
  OptionalTensor dh;        // (R,F), x's dtype

  static constexpr std::tuple fields{Field{"logits", &ExpertScratch::logits},   Field{"probabilities", &ExpertScratch::probabilities},
                                     Field{"weights", &ExpertScratch::weights}, Field{"experts", &ExpertScratch::experts},
                                     Field{"offsets", &ExpertScratch::offsets}, Field{"order", &ExpertScratch::order},
                                     Field{"places", &ExpertScratch::places},   Field{"rows", &ExpertScratch::rows},
                                     Field{"gateUp", &ExpertScratch::gate_up},  Field{"dweights", &ExpertScratch::dweights},
                                     Field{"drows", &ExpertScratch::drows},     Field{"dh", &ExpertScratch::dh}};
};

// y (N,C) from x (N,C). normalized: the k weights of a token are divided by their sum.
void chunked_experts_forward(Context& context, const Tensor& x, const ExpertWeights& weights, const Tensor& y, const ExpertScratch& scratch,
                             const Workspace& matmul_workspace, Activation activation, bool normalized);

// Recomputes routing, gate and up of each chunk; never the down product. Operations, in units of 2·N·k·C·F: 2 to recompute gate and up,
// then
// 6. Gradients as in chunked_mlp.h; those of weights with several chunks must be in the compute dtype.
void chunked_experts_backward(Context& context, const Tensor& dy, const Tensor& x, const ExpertWeights& weights,
                              const ExpertGradients& gradients, const ExpertScratch& scratch, const Workspace& matmul_workspace,
                              Activation activation, bool normalized);

}  // namespace mst
