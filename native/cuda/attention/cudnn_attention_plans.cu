// See cudnn_attention_plans.h.
#include "cudnn_attention_plans.h"

#include "../common/check.h"

namespace mst::cuda {
namespace {

constexpr std::size_t max_plans = 64;
constexpr std::size_t plan_slack = std::size_t{1} << 20;

CudnnAttentionKind forward_kind(const AttentionInputs& inputs, const Tensor& out, const AttentionOptions& g) {
  const auto& [q, k, v, document_start] = inputs;
  CudnnAttentionKind c{};
  c.B = q.rows() / g.T;
  c.T = g.T;
  c.H = q.cols() / g.D;
  c.G = k.cols() / g.D;
  c.D = g.D;
  c.q_stride = q.row_stride;
  c.k_stride = k.row_stride;
  c.v_stride = v.row_stride;
  c.out_stride = out.row_stride;
  c.lse_stride = c.H * c.T;
  c.window = g.window >= g.T ? 0 : g.window;
  c.scale = g.scale;
  c.softcap = g.softcap;
  return c;
}

}  // namespace

CudnnBackwardMemory::CudnnBackwardMemory(std::int64_t B, std::int64_t T, std::int64_t D, std::int64_t heads_per_group, std::int64_t n) {
  const auto rows = static_cast<std::size_t>(B * T * n * heads_per_group), width = static_cast<std::size_t>(D);
  dq_sum = rows * width * sizeof(float);
  delta = rows * sizeof(float);
  plan = (heads_per_group > 1 ? 2 * rows * width * 2 : 0) + plan_slack;
}

CudnnAttention::~CudnnAttention() {
  plans_.clear();
  if (handle_) cudnn().destroy(handle_);
}

void* CudnnAttention::handle() {
  if (handle_) return handle_;
  check_cudnn(cudnn().create(&handle_), "cudnnCreate");
  check_cudnn(cudnn().set_stream(handle_, stream_.get()), "cudnnSetStream");
  return handle_;
}

dnn::Plan* CudnnAttention::find_plan(const CudnnAttentionKind& kind) {
  const auto found = plans_.find(kind);
  if (found != plans_.end()) return found->second.get();
  if (plans_.size() >= max_plans) plans_.clear();
  void* const made = handle();
  std::unique_ptr<dnn::Plan> plan;
  try {
    plan = std::make_unique<dnn::Plan>((kind.is_backward ? backward_plan : forward_plan)(kind, made));
  } catch (const Error&) {}
  return plans_.emplace(kind, std::move(plan)).first->second.get();
}

bool CudnnAttention::forward(const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
                             const AttentionOptions& g) {
  const auto& [q, k, v, document_start] = inputs;
  dnn::Plan* const plan = find_plan(forward_kind(inputs, out, g));
  if (!plan || plan->workspace_bytes > workspace.bytes) return false;
  plan->run(handle(), {{id_q, q.data}, {id_k, k.data}, {id_v, v.data}, {id_out, out.data}, {id_lse, lse.data}}, workspace.data);
  return true;
}

bool CudnnAttention::backward(const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                              const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& g) {
  const auto& [q, k, v, document_start] = inputs;
  const auto& [dq, dk, dv] = gradients;
  CudnnAttentionKind c = forward_kind(inputs, out, g);
  const std::int64_t G = c.G, heads_per_group = c.H / c.G;
  std::int64_t n = G;
  const auto fits = [&] { return G % n == 0 && CudnnBackwardMemory(c.B, c.T, c.D, heads_per_group, n).total() <= workspace.bytes; };
  while (n > 0 && !fits()) --n;
  if (n == 0) return false;
  const CudnnBackwardMemory memory(c.B, c.T, c.D, heads_per_group, n);

  c.is_backward = true;
  c.H = n * heads_per_group;
  c.G = n;
  c.dout_stride = dout.row_stride;
  c.dq_stride = dq.row_stride;
  c.dk_stride = dk.row_stride;
  c.dv_stride = dv.row_stride;
  dnn::Plan* const plan = find_plan(c);
  if (!plan || plan->workspace_bytes > memory.plan) return false;

  char* const dq_sum = static_cast<char*>(workspace.data);
  char* const delta = dq_sum + memory.dq_sum;
  char* const plan_workspace = delta + memory.delta;
  constexpr std::size_t first_version_that_clears = 90600;
  for (std::int64_t group = 0; group < G; group += n) {
    const auto head = [&](const Tensor& tensor, std::int64_t first) { return tensor.slice_cols(first * g.D, (first + 1) * g.D).data; };
    const std::int64_t first = group * heads_per_group;
    if (cudnn().version() < first_version_that_clears) CUDA_CHECK(cudaMemsetAsync(dq_sum, 0, memory.dq_sum, stream_.get()));
    plan->run(handle(),
              {{id_q, head(q, first)},
               {id_k, head(k, group)},
               {id_v, head(v, group)},
               {id_out, head(out, first)},
               {id_lse, lse.as<float>() + first * g.T},
               {id_dout, head(dout, first)},
               {id_dq, head(dq, first)},
               {id_dk, head(dk, group)},
               {id_dv, head(dv, group)},
               {id_dq_sum, dq_sum},
               {id_delta, delta}},
              plan_workspace);
  }
  return true;
}

}  // namespace mst::cuda
