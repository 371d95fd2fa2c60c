// Attention by cuDNN in bf16 on sm_90 and newer, where it is faster than our kernels. It needs T a multiple of 128, D a multiple of 8 and
// at most 256, and no document boundaries. The backward adds to dq atomically, so its bits differ from run to run.
#pragma once

#include <string>

#include "../../ops/attention.h"

namespace mst::cuda {

// Why the device does not compute attention by cuDNN; empty if it does.
std::string cudnn_attention_problem(int device);

// Both return false and do nothing if cuDNN cannot compute the call or the context does not use it; the caller then runs our kernels. The
// first use of a kind of call compares cuDNN with our kernels on a small problem; a kind that fails is never used. workspace: forward 1
// MiB; backward 1 MiB + n·(H/G)·B·T·(4·D + 4) bytes, and 4·D bytes more per row if H > G. n is the number of key/value heads that one
// launch computes: from 1 to G, a divisor of G. More of them keep the device busy with short sequences.
bool cudnn_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                             const Workspace& workspace, const AttentionOptions& options);
bool cudnn_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                              const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

}  // namespace mst::cuda
