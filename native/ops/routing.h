// Routes tokens to experts: a softmax over E experts for each of M tokens, of which the k largest are taken; then the M·k pairs of a token
// and an expert sorted by expert. Pair m·k + j is token m's j-th expert.
#pragma once

#include "../runtime/kernel.h"
#include "contract.h"

namespace mst {

// From logits (M,E): probabilities (M,E) = softmax, in the compute dtype; experts (M,k) i32, the k most probable, of equal ones the first;
// weights (M,k), their probabilities in the compute dtype, divided by their sum if `normalized`. For a row that is not finite the weights
// are NaN, and the experts any different ones.
KERNEL(routing_forward, const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool normalized);

// dlogits (M,E), in the logits' dtype, from dweights (M,k) in the compute dtype. Which experts are taken has no gradient.
KERNEL(routing_backward, const Tensor& dweights, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
       const Tensor& dlogits, bool normalized);

// order (M·k,) i32: the pairs by expert, those of one expert in order. places (M·k,) i32: the place of each pair in it. offsets (E+1,) i32:
// where each expert's pairs begin; the last is M·k.
KERNEL(routing_sort, const Tensor& experts, const Tensor& offsets, const Tensor& order, const Tensor& places);

// Throw if shapes or dtypes of the operands do not match.
void check_routing_forward(const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights);
void check_routing_backward(const Tensor& dweights, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                            const Tensor& dlogits);
void check_routing_sort(const Tensor& experts, const Tensor& offsets, const Tensor& order, const Tensor& places);

}  // namespace mst
