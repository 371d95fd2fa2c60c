// The table of contents of the addon: one ROW per op, with the letters that say what it does with its tensors (binder.h), then the calls
// for devices and their memory.
#include "ops/all.h"
#include "runtime/binder.h"
#include "runtime/device_calls.h"

namespace {

using namespace mst;

// Ops whose letters depend on their arguments.
std::string of_matmul(const Tensor&, const Tensor&, const Tensor&, const Workspace&, bool, bool, double, double beta) {
  return beta == 0 ? "rrw" : "rru";
}
std::string of_cross_entropy(const Tensor&, const LossTargets&, const TokenOutputs&, const LossOptions&, std::int64_t, bool write_dlogits) {
  return write_dlogits ? "urw" : "rrw";
}
std::string of_chunked_mlp_backward(const Tensor&, const Tensor&, const MlpWeights&, const MlpGradients&, const GateUp& gate_up,
                                    const Tensor&, const Workspace&, Activation, const MlpAdapters&) {
  return gate_up.is_kept ? "rrrfusf" : "rrrfssf";
}

Napi::Value initialize_all(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new mst::Environment(env));
#define ROW(op, letters) exports.Set(#op, mst::bind(env, #op, mst::op, letters))
  ROW(embedding_forward, "rrw");
  ROW(embedding_backward, "rru");
  ROW(rms_norm_forward, "rrw");
  ROW(rms_norm_backward, "rrrwus");
  ROW(matmul, of_matmul);
  ROW(bias_forward, "ur");
  ROW(bias_backward, "rus");
  ROW(rope, "rrrw");
  ROW(attention_forward, "rww");
  ROW(attention_backward, "rrrrw");
  ROW(cached_attention, "rw");
  ROW(glu_forward, "rrw");
  ROW(glu_backward, "rrrwww");
  ROW(chunked_mlp_forward, "rrwwsf");
  ROW(chunked_mlp_backward, of_chunked_mlp_backward);
  ROW(chunked_experts_forward, "rrws");
  ROW(chunked_experts_backward, "rrrfs");
  ROW(dropout, "rw");
  ROW(softcap_forward, "rw");
  ROW(softcap_backward, "rrw");
  ROW(cross_entropy, of_cross_entropy);
  ROW(cross_entropy_sum, "rrw");
  ROW(cross_entropy_divisor, "rrw");
  ROW(chunked_cross_entropy, "rrrwws");
  ROW(all_reduce, "u");
  ROW(reduce_scatter, "u");
  ROW(all_gather, "u");
  ROW(all_to_all, "rw");
  ROW(add, "rrw");
  ROW(add_to, "ru");
  ROW(scale, "rw");
  ROW(scale_by, "rrrw");
  ROW(cast, "rw");
  ROW(fill, "w");
  ROW(sum_of_squares, "rws");
  ROW(clip_factor, "rww");
  ROW(adamw_count, "ur");
  ROW(adamw, "uururr");
  ROW(random_normal, "w");
  ROW(nf4_quantize, "rws");
  ROW(nf4_dequantize, "rw");
#undef ROW
  mst::add_device_calls(env, exports);
  return exports;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  mst::guarded(env, [&] { return initialize_all(env, exports); });
  return exports;
}

}  // namespace

NODE_API_MODULE(minisequence, initialize)
