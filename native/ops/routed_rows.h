// Rows of tokens by expert: R = M·k rows in the order of routing_sort().
#pragma once

#include "glu.h"

namespace mst {

// rows (R,C): row r = x (M,C)[order[r] / k], of x's dtype. k is R / M.
KERNEL(routed_gather, const Tensor& x, const Tensor& order, const Tensor& rows);

// y (M,C): y[m] = Σ_j weights[m,j] · rows (R,C)[places[m·k+j]], summed in the compute dtype in the order of j. weights (M,k): in the
// compute dtype; absent: 1.
KERNEL(routed_sum, const Tensor& rows, const Tensor& places, const OptionalTensor& weights, const Tensor& y);

// glu_backward() of R rows whose outputs are summed with weights. dy (R,F) is the gradient without the weight: with w = weights[order[r]],
// dgate = w · dy · up · act'(gate), dup = w · dy · act(gate), y = w · act(gate) · up, and dweights[order[r]] = Σ_f dy · act(gate) · up.
// dgate, dup and y may overwrite gate, up and dy.
struct RoutedGlu {
  Tensor dy, gate, up, dgate, dup, y;
};
KERNEL(routed_glu_backward, const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights,
       Activation activation);

// Throw if shapes or dtypes of the operands do not match.
void check_routed_gather(const Tensor& x, const Tensor& order, const Tensor& rows);
void check_routed_sum(const Tensor& rows, const Tensor& places, const OptionalTensor& weights, const Tensor& y);
void check_routed_glu_backward(const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights);

}  // namespace mst
