// Table of contents of the native side: one ROW per op, then devices and their memory.
#include "binder.h"
#include "device_calls.h"
#include "ops/all.h"

namespace {

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new mst::Environment);
#define ROW(op) exports.Set(#op, mst::bind(env, #op, mst::op))
  ROW(embedding_forward);
  ROW(embedding_backward);
  ROW(rms_norm_forward);
  ROW(rms_norm_backward);
  ROW(matmul);
  ROW(bias_forward);
  ROW(bias_backward);
  ROW(rope);
  ROW(attention_forward);
  ROW(attention_backward);
  ROW(cached_attention);
  ROW(glu_forward);
  ROW(glu_backward);
  ROW(chunked_mlp_forward);
  ROW(chunked_mlp_backward);
  ROW(dropout);
  ROW(softcap_forward);
  ROW(softcap_backward);
  ROW(cross_entropy);
  ROW(cross_entropy_sum);
  ROW(cross_entropy_divisor);
  ROW(chunked_cross_entropy);
  ROW(add);
  ROW(add_to);
  ROW(scale);
  ROW(scale_by);
  ROW(cast);
  ROW(fill);
  ROW(sum_of_squares);
  ROW(clip_factor);
  ROW(adamw_count);
  ROW(adamw);
  ROW(random_normal);
#undef ROW
  mst::add_device_calls(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(minisequence, initialize)
