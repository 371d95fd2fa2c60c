// See cudnn_attention_graph.h.
#include "cudnn_attention_graph.h"

#include <limits>
#include <utility>

namespace mst::cuda {
namespace {

using dnn::Graph;
using dnn::Pointwise;
using dnn::Sizes;
using dnn::Type;
using dnn::Value;

Value heads_of(Graph& graph, CudnnAttentionId id, const CudnnAttentionKind& c, std::int64_t heads, std::int64_t row_stride) {
  return graph.real(id, c.sizes(heads), c.strides(row_stride), Type::bf16);
}

Value transposed_heads_of(Graph& graph, CudnnAttentionId id, const CudnnAttentionKind& c, std::int64_t heads, std::int64_t row_stride) {
  return graph.real(id, {c.B, heads, c.D, c.T}, {c.T * row_stride, c.D, 1, row_stride}, Type::bf16);
}

// scale · q·kᵀ, soft-capped if there is a soft-cap; before_tanh is then the input of its tanh.
struct Scores {
  Value capped, before_tanh;
};
Scores scores_of(Graph& graph, const CudnnAttentionKind& c, const Value& q, const Value& k_transposed) {
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

// Sets scores outside the causal triangle and the window to -∞.
Value masked(Graph& graph, const CudnnAttentionKind& c, Value scores) {
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

}  // namespace

dnn::Plan forward_plan(const CudnnAttentionKind& c, void* handle) {
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

dnn::Plan backward_plan(const CudnnAttentionKind& c, void* handle) {
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

  // dv = pᵀ · dout, summed over the query heads of each key/value head
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

}  // namespace mst::cuda
