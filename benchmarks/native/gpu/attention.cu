// Attention of one causal sequence, 32 query heads and 8 key/value heads: by our kernels, and in turn by those that are
// chosen, cuDNN's where it is found. Operations are those of the causal half; the backward has 2.5 times the forward's.
#include "ops/attention_own.h"
#include "support.h"

namespace mst::bench {
namespace {

constexpr std::int64_t H = 32, G = 8;

void attention(std::int64_t T, std::int64_t D) {
  constexpr Dtype dtype = Dtype::bf16;
  Buffer q(dtype, T, H * D), k(dtype, T, G * D), v(dtype, T, G * D), out(dtype, T, H * D), dout(dtype, T, H * D);
  Buffer dq(dtype, T, H * D), dk(dtype, T, G * D), dv(dtype, T, G * D), lse(Dtype::f32, H, T);
  // enough for cuDNN's backward of all heads at once; see cuda/cudnn_attention.h
  const std::int64_t workspace_bytes = (1 << 20) + H * T * (8 * D + 4);
  Buffer scratch(Dtype::f32, 1, workspace_bytes / 4);
  const Workspace workspace{static_cast<const Tensor&>(scratch).data, static_cast<std::size_t>(workspace_bytes)};
  q.random(), k.random(), v.random(), dout.random();
  const AttentionOptions options{T, D, 1 / std::sqrt(double(D))};
  const AttentionInputs inputs{q, k, v};
  const AttentionGradients gradients{dq, dk, dv};
  const auto own_forward = [&] { cuda::own_attention_forward(context(), inputs, out, lse, options); };
  const auto own_backward = [&] { cuda::own_attention_backward(context(), dout, inputs, out, lse, gradients, workspace, options); };
  const auto forward = [&] { attention_forward(context(), inputs, out, lse, workspace, options); };
  const auto backward = [&] { attention_backward(context(), dout, inputs, out, lse, gradients, workspace, options); };
  const auto times = time_in_turn({{own_forward}, {forward}, {own_backward}, {backward}});
  const double operations = 2 * double(T) * double(T) * double(H * D);
  const auto tell = [&](const char* name, double operations, const std::vector<double>& times) {
    report("attention", message_of(name, ", T ", T, ", D ", D),
           {{"milliseconds", median(times)}, {"operations", operations}, {"teraflops", operations / median(times) * 1e-9}});
  };
  tell("builtin forward", operations, times[0]);
  tell("chosen forward", operations, times[1]);
  tell("builtin backward", 2.5 * operations, times[2]);
  tell("chosen backward", 2.5 * operations, times[3]);
}

}  // namespace

void attention() {
  for (const std::int64_t T : {4096, 16384}) attention(T, 128);
  for (const std::int64_t D : {64, 80, 96, 256}) attention(8192, D);
}

}  // namespace mst::bench
