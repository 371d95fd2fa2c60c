// The gated MLP as a mini-sequence op: down( act(x·gateᵀ) * (x·upᵀ) ), over chunks of M rows of x, so that the (N,F) intermediates
// exist for one chunk at a time. Runs on any device: these are loops over other ops.
// x (N,C); gate, up (F,C); down (C,F); y (N,C). M is the number of rows of h and dh; the last chunk may be shorter.
// Where up's rows follow gate's in memory, one product computes both.
#pragma once

#include "glu.h"
#include "low_rank.h"

namespace mst {

// The three projections may have low-rank adapters, whose gradients are added; the weights are then usually frozen. They cost operations
// and memory of their rank alone. adapter_scratch, x's dtype: 2·M·(largest rank), and with dropout M·max(C,F) more; absent without
// adapters.

// y = MLP(x). h (M,F): workspace. gate_up: (M,2F) workspace, or (N,2F) to keep gate and up for the backward (save: 'gateUp').
void chunked_mlp_forward(Context& context, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, const Tensor& y,
                         const Tensor& gate_up, const Tensor& h, const Workspace& matmul_workspace, Activation activation,
                         const OptionalLowRank& gate_adapter, const OptionalLowRank& up_adapter, const OptionalLowRank& down_adapter,
                         const OptionalTensor& adapter_scratch, double dropout_probability, std::int64_t seed, std::int64_t step);

// dx (N,C) =, dgate, dup (F,C) and ddown (C,F) += in the compute dtype (f32; f64 for f64), or = where the matching overwrite flag
// says that the memory is new. With one chunk they may be bf16, rounded once; with more, every chunk would round. Absent outputs are
// skipped. dx is neither dy nor x. gate_up (M,2F): workspace, recomputed from x per chunk; (N,2F): what the forward kept, overwritten. The
// down product is never rerun. dh (M,F): workspace. Operations: 2 units of N·C·F recomputed, then 6 (1 unit = 2·N·C·F; 8 in all; 6 with
// kept gate and up).
void chunked_mlp_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                          const OptionalTensor& dx, const OptionalTensor& dgate, const OptionalTensor& dup, const OptionalTensor& ddown,
                          const Tensor& gate_up, const Tensor& dh, const Workspace& matmul_workspace, bool gate_up_saved,
                          bool overwrite_dgate, bool overwrite_dup, bool overwrite_ddown, Activation activation,
                          const OptionalLowRank& gate_adapter, const OptionalLowRank& up_adapter, const OptionalLowRank& down_adapter,
                          const OptionalTensor& adapter_scratch, double dropout_probability, std::int64_t seed, std::int64_t step);

}  // namespace mst
