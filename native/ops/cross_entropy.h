// Softmax cross-entropy of one chunk of logits, in place. Everything a loss may want comes from the same reads.
#pragma once

#include "../kernel.h"

namespace mst {

// logits (M,V), targets (M,) i32. With z = logits, or softcap * tanh(logits / softcap) where softcap > 0, and lse = log Σ exp z:
//   losses (M,)    = lse - (1 - label_smoothing) * z[target] - label_smoothing * mean(z) + z_loss * lse²
//   lse (M,), log_probability (M,) = z[target] - lse, entropy (M,) = lse - Σ softmax(z) * z, correct (M,) = 1 where target is the argmax
// all in the compute dtype (f32; f64 for f64), absent ones skipped; the argmax of equal logits is the first.
// write_dlogits: logits is overwritten with d(losses · token_weights)/dlogits, rounded to its dtype:
//   (softmax(z) * (1 + 2 * z_loss * lse) - (1 - label_smoothing) * onehot(target) - label_smoothing / V) * token_weight
//   and, with softcap, * (1 - (z / softcap)²). Otherwise logits is only read.
// Rows whose target is ignore_index get loss, log_probability, entropy, correct 0 and dlogits 0, whatever the row's logits are;
// lse 0 too. Other targets outside [0, V) are an error that names row (+ first_row), target and V. token_weights (M,), compute dtype.
KERNEL(cross_entropy, const Tensor& logits, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& losses,
       const OptionalTensor& lse, const OptionalTensor& log_probability, const OptionalTensor& entropy, const OptionalTensor& correct,
       std::int64_t first_row, std::int64_t ignore_index, double label_smoothing, double z_loss, double softcap, bool write_dlogits);

// loss (1,) = scale * Σ losses (N,) * token_weights (N,) (absent: 1), summed in f64 in a fixed order. Rows that were ignored hold 0.
KERNEL(cross_entropy_sum, const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale);

// divisor (1,) = Σ token_weights (absent: 1) over rows of targets (N,) that are not ignore_index; 1 where there are none,
// so that a mean over nothing is 0 and not NaN.
KERNEL(cross_entropy_divisor, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor, std::int64_t ignore_index);

}  // namespace mst
