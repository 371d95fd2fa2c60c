// Attention by cuDNN; see cudnn_attention.h. The graphs are those that cudnn-frontend (1.23) builds for scaled dot-product attention:
// other, equivalent orders of the same operations find no fast kernel.
#include "cudnn_attention.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <tuple>

#include "../ops/attention_own.h"
#include "../ops/random_normal.h"
#include "cudnn_graph.h"
#include "launch.h"

namespace mst::cuda {
namespace {

using dnn::Graph;
using dnn::Pointwise;
using dnn::Sizes;
using dnn::Type;
using dnn::Value;

thread_local bool is_used = false;

constexpr std::int64_t tile = 128;  // T is a multiple; cuDNN versions differ in how right they are on what is left over
constexpr std::size_t plan_slack = std::size_t{1} << 20;

struct Configuration {
  int device;
  bool is_backward;
  std::int64_t B, T, H, G, D;                                                                           // heads of one launch
  std::int64_t q_stride, k_stride, v_stride, out_stride, dout_stride, dq_stride, dk_stride, dv_stride;  // from row to row
  std::int64_t lse_stride;  // from one sequence of the batch to the next
  std::int64_t window;
  double scale, softcap;

  auto tie() const {
    return std::tie(device, is_backward, B, T, H, G, D, q_stride, k_stride, v_stride, out_stride, dout_stride, dq_stride, dk_stride,
                    dv_stride, lse_stride, window, scale, softcap);
  }
  friend bool operator<(const Configuration& x, const Configuration& y) {
    return x.tie() < y.tie();
  }

  Sizes sizes(std::int64_t heads) const {
    return {B, heads, T, D};
  }
  Sizes strides(std::int64_t row_stride) const {
    return {T * row_stride, D, row_stride, 1};
  }
  Sizes score_sizes() const {
    return {B, H, T, T};
  }
  Sizes row_sizes() const {
    return {B, H, T, 1};
  }
  Sizes lse_strides() const {
    return {lse_stride, T, 1, 1};
  }
};

enum Id : std::int64_t { id_q = 1, id_k, id_v, id_out, id_lse, id_dout, id_dq, id_dk, id_dv, id_dq_sum, id_delta };

Value heads_of(Graph& graph, Id id, const Configuration& c, std::int64_t heads, std::int64_t row_stride) {
  return graph.real(id, c.sizes(heads), c.strides(row_stride), Type::bf16);
}

Value transposed_heads_of(Graph& graph, Id id, const Configuration& c, std::int64_t heads, std::int64_t row_stride) {
  return graph.real(id, {c.B, heads, c.D, c.T}, {c.T * row_stride, c.D, 1, row_stride}, Type::bf16);
}

// scale · q·kᵀ, and with a soft-cap what goes into its tanh.
struct Scores {
  Value capped, before_tanh;
};
Scores scores_of(Graph& graph, const Configuration& c, const Value& q, const Value& k_transposed) {
  const Sizes sizes = c.score_sizes();
  const Value products = graph.matmul(q, k_transposed, graph.temporary(sizes));
  Scores scores{graph.pointwise(Pointwise::multiply, products, graph.scalar(static_cast<float>(c.scale)), graph.temporary(sizes)), {}};
  if (c.softcap == 0) return scores;
  const Value cap = graph.scalar(static_cast<float>(c.softcap));
  scores.before_tanh = graph.pointwise(Pointwise::divide, scores.capped, cap, graph.temporary(sizes));
  const Value tanh = graph.pointwise(Pointwise::tanh, scores.before_tanh, graph.temporary(sizes));
  scores.capped = graph.pointwise(Pointwise::multiply, tanh, cap, graph.temporary(sizes));
  return scores;
}

// Scores outside the causal triangle and the window become -∞.
Value masked(Graph& graph, const Configuration& c, Value scores) {
  constexpr std::size_t first_version_with_infinity = 91000;
  const float nothing =
      cudnn().version() >= first_version_with_infinity ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::lowest();
  const Sizes sizes = c.score_sizes();
  const Value row = graph.index(scores, 2), col = graph.index(scores, 3);
  const Value is_before = graph.pointwise(Pointwise::greater_equal, row, col, graph.temporary(sizes, Type::boolean), Type::boolean);
  scores = graph.select(is_before, scores, graph.scalar(nothing));
  if (c.window == 0) return scores;
  const Value window_row = graph.index(scores, 2), window_col = graph.index(scores, 3);
  const Value reach =
      graph.pointwise(Pointwise::add, window_col, graph.scalar(static_cast<float>(c.window)), graph.temporary(sizes, Type::f32));
  const Value is_near = graph.pointwise(Pointwise::greater, reach, window_row, graph.temporary(sizes, Type::boolean), Type::boolean);
  return graph.select(is_near, scores, graph.scalar(nothing));
}

dnn::Plan forward_plan(const Configuration& c, void* handle) {
  Graph graph;
  const Sizes sizes = c.score_sizes(), rows = c.row_sizes();
  const Value q = heads_of(graph, id_q, c, c.H, c.q_stride), k = transposed_heads_of(graph, id_k, c, c.G, c.k_stride),
              v = heads_of(graph, id_v, c, c.G, c.v_stride), out = heads_of(graph, id_out, c, c.H, c.out_stride),
              lse = graph.real(id_lse, rows, c.lse_strides(), Type::f32);
  const Value scores = masked(graph, c, scores_of(graph, c, q, k).capped);
  const Value max = graph.reduce(dnn::Reduction::max, scores, graph.temporary(rows));
  const Value below_max = graph.pointwise(Pointwise::subtract, scores, max, graph.temporary(sizes));
  const Value exp = graph.pointwise(Pointwise::exp, below_max, graph.temporary(sizes));
  const Value sum = graph.reduce(dnn::Reduction::add, exp, graph.temporary(rows));
  const Value log_sum = graph.pointwise(Pointwise::log, sum, graph.temporary(rows));
  graph.pointwise(Pointwise::add, max, log_sum, lse);
  const Value probabilities = graph.pointwise(Pointwise::divide, exp, sum, graph.temporary(sizes, Type::bf16));
  graph.matmul(probabilities, v, out);
  return std::move(graph).build(handle);
}

dnn::Plan backward_plan(const Configuration& c, void* handle) {
  Graph graph;
  const Sizes sizes = c.score_sizes(), rows = c.row_sizes(), heads = c.sizes(c.H);
  const Value q = heads_of(graph, id_q, c, c.H, c.q_stride), k = transposed_heads_of(graph, id_k, c, c.G, c.k_stride),
              v = transposed_heads_of(graph, id_v, c, c.G, c.v_stride), out = heads_of(graph, id_out, c, c.H, c.out_stride),
              dout = heads_of(graph, id_dout, c, c.H, c.dout_stride), dq = heads_of(graph, id_dq, c, c.H, c.dq_stride),
              dk = heads_of(graph, id_dk, c, c.G, c.dk_stride), dv = heads_of(graph, id_dv, c, c.G, c.dv_stride),
              lse = graph.real(id_lse, rows, c.lse_strides(), Type::f32);
  const Value scale = graph.scalar(static_cast<float>(c.scale));

  // delta = Σ_d dout · out
  const Value dout_out =
      graph.pointwise(Pointwise::multiply, dout, out, graph.temporary(heads, {c.H * c.T * c.D, c.T * c.D, c.H * c.D, 1}, Type::f32));
  const Value row_sum = graph.reduce(dnn::Reduction::add, dout_out, graph.temporary(rows));
  const Value delta = graph.real(id_delta, rows, dnn::packed_strides(rows), Type::f32);
  graph.pointwise(Pointwise::multiply, row_sum, graph.scalar(1), delta);

  // p = exp(scores - lse)
  const Scores scores = scores_of(graph, c, q, k);
  const Value below_lse = graph.pointwise(Pointwise::subtract, scores.capped, lse, graph.temporary(sizes));
  const Value p = graph.pointwise(Pointwise::exp, masked(graph, c, below_lse), graph.temporary(sizes));

  // dv = pᵀ · dout, and the sum over the query heads of each key/value head
  const Sizes transposed_strides{c.H * c.T * c.T, c.T * c.T, 1, c.T};
  const auto product_over_queries = [&](const Value& left, const Value& right, const Value& to) {
    const Value transposed = graph.reshape(left, graph.temporary(sizes, transposed_strides, Type::bf16));
    if (c.H == c.G)
      graph.matmul(transposed, right, to);
    else
      graph.reduce(dnn::Reduction::add, graph.matmul(transposed, right, graph.temporary(heads, Type::bf16)), to);
  };
  product_over_queries(p, dout, dv);

  // ds = p · (dout · vᵀ - delta), through the soft-cap and the scale
  const Value dp = graph.matmul(dout, v, graph.temporary(sizes));
  const Value centred = graph.pointwise(Pointwise::subtract, dp, delta, graph.temporary(sizes));
  Value ds = graph.pointwise(Pointwise::multiply, centred, p, graph.temporary(sizes));
  if (c.softcap > 0) {
    const Value cap = graph.scalar(static_cast<float>(c.softcap));
    const Value dtanh = graph.pointwise(Pointwise::multiply, ds, cap, graph.temporary(sizes));
    ds = graph.pointwise(Pointwise::divide, graph.tanh_backward(dtanh, scores.before_tanh), cap, graph.temporary(sizes));
  }
  const Value scaled_ds = graph.pointwise(Pointwise::multiply, ds, scale, graph.temporary(sizes, Type::bf16));
  product_over_queries(scaled_ds, q, dk);

  const Value k_rows = graph.reshape(k, graph.temporary(c.sizes(c.G), c.strides(c.k_stride), Type::bf16));
  const Value dq_sum = graph.real(id_dq_sum, heads, dnn::packed_strides(heads), Type::f32);
  graph.matmul(scaled_ds, k_rows, dq_sum);
  graph.pointwise(Pointwise::identity, dq_sum, dq);
  return std::move(graph).build(handle);
}

void* handle_of(Context& context) {
  thread_local std::map<int, void*> handles;
  const auto [place, is_new] = handles.try_emplace(context.device().index, nullptr);
  if (is_new) check_cudnn(cudnn().create(&place->second), "cudnnCreate");
  check_cudnn(cudnn().set_stream(place->second, context.stream()), "cudnnSetStream");
  return place->second;
}

// Null where cuDNN has no engine.
dnn::Plan* find_plan(const Configuration& configuration, void* handle) {
  constexpr std::size_t max_plans = 64;
  thread_local std::map<Configuration, std::unique_ptr<dnn::Plan>> plans;
  const auto found = plans.find(configuration);
  if (found != plans.end()) return found->second.get();
  if (plans.size() >= max_plans) plans.clear();
  std::unique_ptr<dnn::Plan> plan;
  try {
    plan = std::make_unique<dnn::Plan>((configuration.is_backward ? backward_plan : forward_plan)(configuration, handle));
  } catch (const Error&) {}
  return plans.emplace(configuration, std::move(plan)).first->second.get();
}

bool applies(std::initializer_list<const Tensor*> tensors, const AttentionOptions& g) {
  constexpr std::int64_t elements_of_16_bytes = 8;
  constexpr std::size_t version_with_a_window_that_is_not_causal = 91400;
  if (g.window > 0 && cudnn().version() == version_with_a_window_that_is_not_causal) return false;
  if (g.T % tile != 0 || g.D % elements_of_16_bytes != 0 || g.D > 256) return false;
  constexpr std::int64_t end_of_offsets = std::int64_t{1} << 31;  // from where 9.14 gave a wrong dq
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* t) {
    return t->dtype == Dtype::bf16 && t->rows() * t->row_stride < end_of_offsets && t->rows() > 0 &&
           t->row_stride % elements_of_16_bytes == 0 && reinterpret_cast<std::uintptr_t>(t->data) % 16 == 0;
  });
}

Configuration forward_configuration(const Context& context, const AttentionInputs& inputs, const Tensor& out, const AttentionOptions& g) {
  const auto& [q, k, v, document_start] = inputs;
  Configuration c{};
  c.device = context.device().index;
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

bool run_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
                 const AttentionOptions& g) {
  void* const handle = handle_of(context);
  dnn::Plan* const plan = find_plan(forward_configuration(context, inputs, out, g), handle);
  if (!plan || plan->workspace_bytes > workspace.bytes) return false;
  const auto& [q, k, v, document_start] = inputs;
  plan->run(handle, {{id_q, q.data}, {id_k, k.data}, {id_v, v.data}, {id_out, out.data}, {id_lse, lse.data}}, workspace.data);
  return true;
}

// The memory of one backward launch over n key/value groups: dq in f32, delta, and what the plan asks for, which is dk and dv of every
// query head where several share a group.
struct BackwardMemory {
  std::size_t dq_sum, delta, plan;

  std::size_t total() const {
    return dq_sum + delta + plan;
  }
};
BackwardMemory backward_memory(std::int64_t B, std::int64_t T, std::int64_t D, std::int64_t heads_per_group, std::int64_t n) {
  const auto rows = static_cast<std::size_t>(B * T * n * heads_per_group), width = static_cast<std::size_t>(D);
  return {rows * width * sizeof(float), rows * sizeof(float), (heads_per_group > 1 ? 2 * rows * width * 2 : 0) + plan_slack};
}

bool run_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                  const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& g) {
  const auto& [q, k, v, document_start] = inputs;
  const auto& [dq, dk, dv] = gradients;
  Configuration c = forward_configuration(context, inputs, out, g);
  const std::int64_t G = c.G, heads_per_group = c.H / c.G;
  std::int64_t n = G;
  const auto fits = [&] { return G % n == 0 && backward_memory(c.B, c.T, c.D, heads_per_group, n).total() <= workspace.bytes; };
  while (n > 0 && !fits()) --n;
  if (n == 0) return false;
  const BackwardMemory memory = backward_memory(c.B, c.T, c.D, heads_per_group, n);

  c.is_backward = true;
  c.H = n * heads_per_group;
  c.G = n;
  c.dout_stride = dout.row_stride;
  c.dq_stride = dq.row_stride;
  c.dk_stride = dk.row_stride;
  c.dv_stride = dv.row_stride;
  void* const handle = handle_of(context);
  dnn::Plan* const plan = find_plan(c, handle);
  if (!plan || plan->workspace_bytes > memory.plan) return false;

  char* const dq_sum = static_cast<char*>(workspace.data);
  char* const delta = dq_sum + memory.dq_sum;
  char* const plan_workspace = delta + memory.delta;
  constexpr std::size_t first_version_that_clears = 90600;
  for (std::int64_t group = 0; group < G; group += n) {
    const auto head = [&](const Tensor& tensor, std::int64_t first) { return tensor.slice_cols(first * g.D, (first + 1) * g.D).data; };
    const std::int64_t first = group * heads_per_group;
    if (cudnn().version() < first_version_that_clears) CUDA_CHECK(cudaMemsetAsync(dq_sum, 0, memory.dq_sum, context.stream()));
    plan->run(handle,
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

// ---- The first use of a configuration

struct TestKey {
  int device;
  bool is_backward;
  std::int64_t D, heads_per_group;
  bool has_window, has_softcap;

  friend bool operator<(const TestKey& x, const TestKey& y) {
    return std::tie(x.device, x.is_backward, x.D, x.heads_per_group, x.has_window, x.has_softcap) <
           std::tie(y.device, y.is_backward, y.D, y.heads_per_group, y.has_window, y.has_softcap);
  }
};

// Memory of a self-test, some MiB outside the arena, for as long as the test.
class TestMemory {
 public:
  explicit TestMemory(Context& context) : context_(context) {}
  ~TestMemory() {
    for (void* block : blocks_) cudaFree(block);
  }
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;

  Tensor tensor(std::int64_t rows, std::int64_t cols, Dtype dtype) {
    return {bytes(static_cast<std::size_t>(rows * cols) * size_of(dtype)), dtype, 2, {rows, cols}, cols};
  }
  Tensor random(std::int64_t rows, std::int64_t cols) {
    const Tensor made = tensor(rows, cols, Dtype::bf16);
    random_normal(context_, made, 0, 1, 1, static_cast<std::int64_t>(blocks_.size()), 0);
    return made;
  }
  Workspace workspace(std::size_t size) {
    return {bytes(size), size};
  }

 private:
  void* bytes(std::size_t size) {
    void* block = nullptr;
    CUDA_CHECK(cudaMalloc(&block, size));
    blocks_.push_back(block);
    return block;
  }
  Context& context_;
  std::vector<void*> blocks_;
};

std::vector<float> to_host(Context& context, const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  if (tensor.dtype == Dtype::f32) {
    CUDA_CHECK(cudaMemcpyAsync(values.data(), tensor.data, values.size() * sizeof(float), cudaMemcpyDeviceToHost, context.stream()));
    CUDA_CHECK(cudaStreamSynchronize(context.stream()));
    return values;
  }
  std::vector<__nv_bfloat16> stored(values.size());
  CUDA_CHECK(cudaMemcpyAsync(stored.data(), tensor.data, stored.size() * 2, cudaMemcpyDeviceToHost, context.stream()));
  CUDA_CHECK(cudaStreamSynchronize(context.stream()));
  std::transform(stored.begin(), stored.end(), values.begin(), [](__nv_bfloat16 value) { return __bfloat162float(value); });
  return values;
}

// ‖a - b‖ <= limit · ‖b‖; false with any NaN.
bool agree(Context& context, const Tensor& a, const Tensor& b) {
  constexpr double limit = 2e-2;  // both sides round to bf16
  const std::vector<float> x = to_host(context, a), y = to_host(context, b);
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
    norm += double(y[i]) * y[i];
  }
  return difference <= limit * limit * norm;
}

// cuDNN against the own kernels on T = 256 with one key/value head.
bool passes_test(Context& context, const TestKey& key) {
  const std::int64_t T = 256, D = key.D, H = key.heads_per_group;
  const AttentionOptions g{T, D, 1 / std::sqrt(static_cast<double>(D)), key.has_window ? 100 : 0, key.has_softcap ? 5.0 : 0.0};
  TestMemory memory(context);
  const Tensor q = memory.random(T, H * D), k = memory.random(T, D), v = memory.random(T, D), dout = memory.random(T, H * D);
  const auto heads = [&](std::int64_t count) { return memory.tensor(T, count * D, Dtype::bf16); };
  const Tensor out = heads(H), own_out = heads(H), lse = memory.tensor(H, T, Dtype::f32), own_lse = memory.tensor(H, T, Dtype::f32);
  const Workspace workspace = memory.workspace(backward_memory(1, T, D, H, 1).total());
  const AttentionInputs inputs{q, k, v};
  own_attention_forward(context, inputs, own_out, own_lse, g);
  if (!key.is_backward)
    return run_forward(context, inputs, out, lse, workspace, g) && agree(context, out, own_out) && agree(context, lse, own_lse);
  const Tensor dq = heads(H), dk = heads(1), dv = heads(1), own_dq = heads(H), own_dk = heads(1), own_dv = heads(1);
  own_attention_backward(context, dout, inputs, own_out, own_lse, {own_dq, own_dk, own_dv}, workspace, g);
  return run_backward(context, dout, inputs, own_out, own_lse, {dq, dk, dv}, workspace, g) && agree(context, dq, own_dq) &&
         agree(context, dk, own_dk) && agree(context, dv, own_dv);
}

bool is_trusted(Context& context, const Tensor& q, const Tensor& k, const AttentionOptions& g, bool is_backward) {
  thread_local std::map<TestKey, bool> results;
  const TestKey key{context.device().index, is_backward, g.D, q.cols() / k.cols(), g.window > 0 && g.window<g.T, g.softcap> 0};
  const auto found = results.find(key);
  if (found != results.end()) return found->second;
  bool passed = false;
  try {
    passed = passes_test(context, key);
  } catch (const Error&) {
    cudaGetLastError();
  }
  return results[key] = passed;
}

}  // namespace

void use_cudnn_attention(bool use) {
  is_used = use;
}

std::string cudnn_attention_problem(int device) {
  int major = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  constexpr int hopper = 9;
  if (major < hopper) return "before sm_90 the own kernels are as fast";
  return find_cudnn().problem;
}

bool cudnn_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                             const Workspace& workspace, const AttentionOptions& options) {
  const auto& [q, k, v, document_start] = inputs;
  return is_used && !document_start && applies({&q, &k, &v, &out}, options) && is_trusted(context, q, k, options, false) &&
         run_forward(context, inputs, out, lse, workspace, options);
}

bool cudnn_attention_backward(Context& context, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                              const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options) {
  const auto& [q, k, v, document_start] = inputs;
  const auto& [dq, dk, dv] = gradients;
  return is_used && !document_start && applies({&dout, &q, &k, &v, &out, &dq, &dk, &dv}, options) &&
         is_trusted(context, q, k, options, true) && run_backward(context, dout, inputs, out, lse, gradients, workspace, options);
}

}  // namespace mst::cuda
