// Softmax cross-entropy of one chunk of logits, in place. All outputs come from the same reads of the logits.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"
#include "contract.h"

namespace mst {

// ids (M,) i32, one per row of logits; weights (M,) in the compute dtype (absent: 1).
struct LossTargets {
  Tensor ids;
  OptionalTensor weights = {};

  static constexpr std::tuple fields{Field{"ids", &LossTargets::ids}, Field{"weights", &LossTargets::weights}};
};

// Each (M,), in the compute dtype (f32; f64 for f64). Absent ones are skipped.
struct TokenOutputs {
  Tensor losses;
  OptionalTensor lse = {}, log_probability = {}, entropy = {}, correct = {};

  static constexpr std::tuple fields{Field{"losses", &TokenOutputs::losses}, Field{"lse", &TokenOutputs::lse},
                                     Field{"logProbability", &TokenOutputs::log_probability}, Field{"entropy", &TokenOutputs::entropy},
                                     Field{"correct", &TokenOutputs::correct}};
};

struct LossOptions {
  std::int64_t ignore_index = -100;
  double label_smoothing = 0, z_loss = 0, softcap = 0;

  static constexpr std::tuple fields{Field{"ignoreIndex", &LossOptions::ignore_index},
                                     Field{"labelSmoothing", &LossOptions::label_smoothing}, Field{"zLoss", &LossOptions::z_loss},
                                     Field{"softcap", &LossOptions::softcap}};
};

// logits (M,V). With z = logits, or softcap * tanh(logits / softcap) if softcap > 0, and lse = log Σ exp z:
//   losses (M,)    = lse - (1 - label_smoothing) * z[target] - label_smoothing * mean(z) + z_loss * lse²
//   lse (M,), log_probability (M,) = z[target] - lse, entropy (M,) = lse - Σ softmax(z) * z,
//   correct (M,)   = 1 if target is the argmax, else 0; of equal logits the first is the argmax
// write_dlogits: logits is overwritten with d(losses · weights)/dlogits, rounded to its dtype:
//   (softmax(z) * (1 + 2 * z_loss * lse) - (1 - label_smoothing) * onehot(target) - label_smoothing / V) * weight
//   and, with softcap, * (1 - (z / softcap)²)
// Otherwise logits is only read. Rows whose target is ignore_index get 0 in all outputs and in dlogits, whatever their logits are. Other
// targets outside [0, V) are an error that names row (+ first_row), target and V.
KERNEL(cross_entropy, const Tensor& logits, const LossTargets& targets, const TokenOutputs& outputs, const LossOptions& options,
       std::int64_t first_row, bool write_dlogits);

// Throws if targets or outputs do not match the rows of another tensor.
void check_loss(const char* op, const Operand& of, const LossTargets& targets, const TokenOutputs& outputs);

// loss (1,) = scale * Σ losses (N,) * token_weights (N,) (absent: 1), all in one dtype, summed in f64 in a fixed order. Ignored rows hold
// 0.
KERNEL(cross_entropy_sum, const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale);

// divisor (1,) = Σ token_weights (absent: 1) over the rows of targets (N,) that are not ignore_index. It is 1 if there are none, so that a
// mean over nothing is 0 and not NaN.
KERNEL(cross_entropy_divisor, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor, std::int64_t ignore_index);

// Throw if shapes or dtypes of the operands do not match.
void check_loss_sum(const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss);
void check_loss_divisor(const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor);

}  // namespace mst
