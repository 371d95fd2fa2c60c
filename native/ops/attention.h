// Causal self-attention with grouped key/value heads, by streaming softmax: memory grows with T, never with T². Query head h reads
// key/value head h / (H/G). Row n = b·T + t. Query t sees key s if s <= t, and
//   window > 0:             s > t - window
//   document_start given:   b·T + s >= document_start[n]
// score = scale * q·k, and then, if softcap > 0, softcap * tanh(score / softcap). lse (log-sum-exp) is natural, over the scores that a
// query sees. Workspace on the CPU, in elements of the compute dtype, with tiles of 128 queries by 256 keys:
//   forward   threads * (128·256 + 2·256·D + 2·128·D + 256)
//   backward  threads * (2·128·256 + 4·256·D + 2·128·D) + B·H·T, and N·H·D more for bf16
// On CUDA: forward none, backward B·H·T f32; for cuDNN see cuda/attention/cudnn_attention.h.
#pragma once

#include "../runtime/fields.h"
#include "../runtime/kernel.h"
#include "attention_geometry.h"

namespace mst {

struct AttentionOptions {
  std::int64_t T, D;  // length of a sequence, size of a head
  double scale;
  std::int64_t window = 0;
  double softcap = 0;

  static constexpr std::tuple fields{Field{"T", &AttentionOptions::T}, Field{"D", &AttentionOptions::D},
                                     Field{"scale", &AttentionOptions::scale}, Field{"window", &AttentionOptions::window},
                                     Field{"softcap", &AttentionOptions::softcap}};
};

// q (N,H·D), k and v (N,G·D), one dtype, any row strides. document_start (N,) i32: the row where the document of a row begins.
struct AttentionInputs {
  Tensor q, k, v;
  OptionalTensor document_start = {};

  static constexpr std::tuple fields{Field{"q", &AttentionInputs::q}, Field{"k", &AttentionInputs::k}, Field{"v", &AttentionInputs::v},
                                     Field{"documentStart", &AttentionInputs::document_start}};
};

// dq (N,H·D), dk and dv (N,G·D), in the inputs' dtype.
struct AttentionGradients {
  Tensor dq, dk, dv;

  static constexpr std::tuple fields{Field{"dq", &AttentionGradients::dq}, Field{"dk", &AttentionGradients::dk},
                                     Field{"dv", &AttentionGradients::dv}};
};

// out (N,H·D) = softmax(scores) · v; lse (B,H,T) in the compute dtype.
KERNEL(attention_forward, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
       const AttentionOptions& options);

// Assigns the gradients. Recomputes probabilities from q, k and lse. No output may be an input.
KERNEL(attention_backward, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
       const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

// Returns the geometry of the inputs. Throws if the inputs, out and lse do not match.
AttentionGeometry check_attention(const char* op, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                                  const AttentionOptions& options);
// Throws if a gradient does not have the shape and dtype of its tensor.
void check_attention_gradients(const Tensor& dout, const AttentionInputs& inputs, const AttentionGradients& gradients);

}  // namespace mst
