// Looks up rows of a table by id.
#pragma once

#include "../runtime/kernel.h"
#include "contract.h"

namespace mst {

// y (N,C) = weight (V,C)[ids (N,) i32]. An id outside [0, V) is an error that names row, id and V; its row is not read.
KERNEL(embedding_forward, const Tensor& weight, const Tensor& ids, const Tensor& y);

// dweight (V,C) += dy (N,C) at the rows ids (N,), in the compute dtype (f32; f64 for f64) or bf16, which sums each row in f32 and rounds
// once. Tokens are added in order, so that repeated ids always give the same bits. The workspace holds the tokens in order of their ids: 4
// bytes per token on the CPU, 16 on CUDA.
KERNEL(embedding_backward, const Tensor& dy, const Tensor& ids, const Tensor& dweight, const Workspace& workspace);

// Throw if shapes or dtypes of the operands do not match.
void check_embedding_forward(const Tensor& weight, const Tensor& ids, const Tensor& y);
void check_embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight);

}  // namespace mst
