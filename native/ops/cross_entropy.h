// Softmax cross-entropy of one chunk of logits, in place. Everything a loss may want comes from the same reads.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"
#include "contract.h"

namespace mst {

// ids (M,) i32, one a row of logits; weights (M,) in the compute dtype (absent: 1).
struct LossTargets {
  Tensor ids;
  OptionalTensor weights = {};

  static constexpr std::tuple fields{Field{"ids", &LossTargets::ids}, Field{"weights", &LossTargets::weights}};
};

// (M,) each, in the compute dtype (f32; f64 for f64); absent ones are skipped.
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

// logits (M,V). With z = logits, or softcap * tanh(logits / softcap) where softcap > 0, and lse = log Σ exp z:
//   losses (M,)    = lse - (1 - label_smoothing) * z[target] - label_smoothing * mean(z) + z_loss * lse²
//   lse (M,), log_probability (M,) = z[target] - lse, entropy (M,) = lse - Σ softmax(z) * z, correct (M,) = 1 where target is the argmax;
//   the argmax of equal logits is the first
// write_dlogits: logits is overwritten with d(losses · weights)/dlogits, rounded to its dtype:
//   (softmax(z) * (1 + 2 * z_loss * lse) - (1 - label_smoothing) * onehot(target) - label_smoothing / V) * weight
//   and, with softcap, * (1 - (z / softcap)²). Otherwise logits is only read.
// Rows whose target is ignore_index get loss, log_probability, entropy, correct 0 and dlogits 0, whatever the row's logits are;
// lse 0 too. Other targets outside [0, V) are an error that names row (+ first_row), target and V.
KERNEL(cross_entropy, const Tensor& logits, const LossTargets& targets, const TokenOutputs& outputs, const LossOptions& options,
       std::int64_t first_row, bool write_dlogits);

// Throws where targets or outputs do not fit the rows of another tensor.
void check_loss(const char* op, const Operand& of, const LossTargets& targets, const TokenOutputs& outputs);

// loss (1,) = scale * Σ losses (N,) * token_weights (N,) (absent: 1), all in one dtype, summed in f64 in a fixed order. Rows that were
// ignored hold 0.
KERNEL(cross_entropy_sum, const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale);

// divisor (1,) = Σ token_weights (absent: 1) over rows of targets (N,) that are not ignore_index; 1 where there are none,
// so that a mean over nothing is 0 and not NaN.
KERNEL(cross_entropy_divisor, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor, std::int64_t ignore_index);

// Throw where what the sum and the divisor are made of does not go together.
void check_loss_sum(const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss);
void check_loss_divisor(const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor);

}  // namespace mst
