// Our matrix product on CUDA, used if cuBLASLt is not. The contract is that of matmul.h; it needs no workspace. Deterministic.
#pragma once

#include "../runtime/context.h"

namespace mst::cuda {

// bf16 on tensor cores, f32 by FMA.
void own_matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double alpha,
                double beta);

}  // namespace mst::cuda
