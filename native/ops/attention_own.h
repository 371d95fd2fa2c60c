// Our attention kernels, for every CUDA device, dtype and shape; contracts as in attention.h.
#pragma once

#include "attention.h"

namespace mst::cuda {

void own_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                           const AttentionOptions& options);
void own_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                            const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

}  // namespace mst::cuda
