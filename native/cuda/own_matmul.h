// The package's own matrix product, for machines without cuBLASLt; contract as in ops/matmul.h, and no workspace. Deterministic.
#pragma once

#include "../context.h"

namespace mst::cuda {

// Whether the thread's device computes products so; set when the command thread attaches itself to the device.
void use_own_products(bool use);
bool uses_own_products();

// bf16 on tensor cores, f32 by plain FMAs.
void own_matmul(Context& context, const Tensor& a, const Tensor& b, const Tensor& c, bool transpose_a, bool transpose_b, double alpha,
                double beta);

}  // namespace mst::cuda
