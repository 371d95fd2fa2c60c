// Attention by cuDNN on sm_90 and newer, in bf16, where it is faster than our kernels: no document boundaries, T a multiple of
// 128, D a multiple of 8. The backward adds dq atomically and is not the same to the bit from run to run.
#pragma once

#include <string>

#include "../../ops/attention.h"

namespace mst::cuda {

// Why a device cannot compute attention by cuDNN; empty where it can.
std::string cudnn_attention_problem(int device);

// Both return false, having done nothing, where cuDNN does not apply or the context does not use it: our kernels then do the work. The
// first use of a kind compares cuDNN with our kernels on a small problem; one that fails is never used.
// workspace: forward 1 MiB; backward 1 MiB + n·(H/G)·B·T·(4·D + 4) bytes, and 4·D more a row where H > G, for an n from 1 to G that
// divides G: the key/value heads that one launch computes. More of them help short sequences to fill the device.
bool cudnn_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                             const Workspace& workspace, const AttentionOptions& options);
bool cudnn_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                              const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

}  // namespace mst::cuda
