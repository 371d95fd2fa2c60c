// A mixture of experts over mini-sequences; see chunked_experts.h.
#include "chunked_experts.h"

#include <algorithm>

#include "contract.h"
#include "grouped_matmul.h"
#include "matmul.h"
#include "routed_rows.h"
#include "routing.h"

namespace mst {
namespace {

struct Sizes {
  std::int64_t N, C, E, F, M, k;
};

Sizes check(const char* op, const Operand& x, const ExpertWeights& weights, const ExpertScratch& scratch) {
  const auto& [router, gate_up, down] = weights;
  const Sizes sizes{x.tensor->rows(), x.tensor->cols(), router.rows(), down.cols(), scratch.probabilities.rows(), scratch.experts.cols()};
  const auto& [N, C, E, F, M, k] = sizes;
  const Operand of{"router", router};
  require_shape(op, of, E, C, x);
  require_shape(op, {"gate_up", gate_up}, E * 2 * F, C, of);
  require_shape(op, {"down", down}, E * C, F, of);
  MST_CHECK(M > 0 && k >= 1 && k <= E, op, ": probabilities ", scratch.probabilities, " must have rows, and experts ", scratch.experts,
            " 1 to ", E, " columns");
  const Operand rows{"probabilities", scratch.probabilities};
  const Dtype dtype = x.tensor->dtype, wide = compute_dtype(dtype);
  const auto require = [&](const Operand& operand, std::int64_t num_rows, std::int64_t cols, Dtype dtype) {
    require_shape(op, operand, num_rows, cols, rows);
    require_dtype(op, operand, dtype);
  };
  require(rows, M, E, wide);
  require({"logits", scratch.logits}, M, E, dtype);
  require({"weights", scratch.weights}, M, k, wide);
  require({"dweights", scratch.dweights}, M, k, wide);
  require({"experts", scratch.experts}, M, k, Dtype::i32);
  require_vector(op, {"offsets", scratch.offsets}, E + 1, Dtype::i32, of);
  require_vector(op, {"order", scratch.order}, M * k, Dtype::i32, rows);
  require_vector(op, {"places", scratch.places}, M * k, Dtype::i32, rows);
  require({"rows", scratch.rows}, M * k, C, dtype);
  require({"drows", scratch.drows}, M * k, C, dtype);
  require({"gate_up scratch", scratch.gate_up}, M * k, 2 * F, dtype);
  require({"dh", scratch.dh}, M * k, F, dtype);
  for (const Operand& operand : {of, {"gate_up", gate_up}, {"down", down}}) require_dtype(op, operand, dtype);
  return sizes;
}

void require_gradient(const char* op, const char* name, const std::optional<WeightGradient>& gradient, const Tensor& weight) {
  if (!gradient) return;
  require_shape(op, {name, gradient->gradient}, weight.rows(), weight.cols(), {"its weight", weight});
  require_gradient_dtype(op, {name, gradient->gradient}, weight.dtype);
}

// The first elements of a vector.
Tensor first(const Tensor& vector, std::int64_t size) {
  Tensor view = vector;
  view.shape[0] = size;
  return view;
}
OptionalTensor rows_of(const OptionalTensor& tensor, std::int64_t rows) {
  return tensor ? OptionalTensor(tensor->slice_rows(0, rows)) : std::nullopt;
}

// The scratch for a chunk of fewer tokens.
ExpertScratch scratch_of(const ExpertScratch& all, std::int64_t tokens, std::int64_t k) {
  const std::int64_t R = tokens * k;
  return {all.logits.slice_rows(0, tokens),
          all.probabilities.slice_rows(0, tokens),
          all.weights.slice_rows(0, tokens),
          all.experts.slice_rows(0, tokens),
          all.offsets,
          first(all.order, R),
          first(all.places, R),
          all.rows.slice_rows(0, R),
          all.gate_up.slice_rows(0, R),
          rows_of(all.dweights, tokens),
          rows_of(all.drows, R),
          rows_of(all.dh, R)};
}

// Routes the tokens of a chunk and computes gate and up of their rows.
void gate_up_forward(Context& context, const Tensor& x, const ExpertWeights& weights, const ExpertScratch& s, const Workspace& workspace,
                     bool normalized) {
  matmul(context, x, weights.router, s.logits, workspace, false, true, 1, 0);
  routing_forward(context, s.logits, s.probabilities, s.experts, s.weights, normalized);
  routing_sort(context, s.experts, s.offsets, s.order, s.places);
  routed_gather(context, x, s.order, s.rows);
  grouped_matmul(context, s.rows, weights.gate_up, s.gate_up, s.offsets, workspace, true);
}

double beta_of(const WeightGradient& gradient, std::int64_t first_token) {
  return first_token == 0 && gradient.overwrite ? 0 : 1;
}

}  // namespace

void chunked_experts_forward(Context& context, const Tensor& x, const ExpertWeights& weights, const Tensor& y, const ExpertScratch& scratch,
                             const Workspace& matmul_workspace, Activation activation, bool normalized) {
  const char* const op = "chunked_experts_forward";
  const auto [N, C, E, F, M, k] = check(op, {"x", x}, weights, scratch);
  require_shape(op, {"y", y}, N, C, {"x", x});
  require_dtype(op, {"y", y}, x.dtype);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);
    const ExpertScratch s = scratch_of(scratch, end - begin, k);
    gate_up_forward(context, x.slice_rows(begin, end), weights, s, matmul_workspace, normalized);
    const Tensor gate = s.gate_up.slice_cols(0, F), h = gate;
    glu_forward(context, gate, s.gate_up.slice_cols(F, 2 * F), h, activation);
    grouped_matmul(context, h, weights.down, s.rows, s.offsets, matmul_workspace, true);
    routed_sum(context, s.rows, s.places, s.weights, y.slice_rows(begin, end));
  }
}

void chunked_experts_backward(Context& context, const Tensor& dy, const Tensor& x, const ExpertWeights& weights,
                              const ExpertGradients& gradients, const ExpertScratch& scratch, const Workspace& matmul_workspace,
                              Activation activation, bool normalized) {
  const char* const op = "chunked_experts_backward";
  const auto [N, C, E, F, M, k] = check(op, {"x", x}, weights, scratch);
  for (const Operand& operand : {Operand{"dy", dy}, {"dx", gradients.dx}}) {
    require_shape(op, operand, N, C, {"x", x});
    require_dtype(op, operand, x.dtype);
  }
  MST_CHECK(scratch.dweights && scratch.drows && scratch.dh, op, ": dweights, drows and dh must be given");
  const auto& [dx, drouter, dgate_up, ddown] = gradients;
  require_gradient(op, "drouter", drouter, weights.router);
  require_gradient(op, "dgate_up", dgate_up, weights.gate_up);
  require_gradient(op, "ddown", ddown, weights.down);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);
    const ExpertScratch s = scratch_of(scratch, end - begin, k);
    const Tensor x_chunk = x.slice_rows(begin, end), gate = s.gate_up.slice_cols(0, F), up = s.gate_up.slice_cols(F, 2 * F);
    const Tensor &dh = *s.dh, &drows = *s.drows;
    gate_up_forward(context, x_chunk, weights, s, matmul_workspace, normalized);
    routed_gather(context, dy.slice_rows(begin, end), s.order, drows);
    grouped_matmul(context, drows, weights.down, dh, s.offsets, matmul_workspace, false);
    routed_glu_backward(context, {dh, gate, up, gate, up, dh}, s.order, s.weights, *s.dweights, activation);  // dh → w · h
    if (ddown) grouped_matmul_weights(context, drows, dh, ddown->gradient, s.offsets, matmul_workspace, beta_of(*ddown, begin));
    if (dgate_up)
      grouped_matmul_weights(context, s.gate_up, s.rows, dgate_up->gradient, s.offsets, matmul_workspace, beta_of(*dgate_up, begin));
    if (!dx && !drouter) continue;
    const Tensor& dlogits = s.logits;
    routing_backward(context, *s.dweights, s.probabilities, s.experts, s.weights, dlogits, normalized);
    if (drouter) matmul(context, dlogits, x_chunk, drouter->gradient, matmul_workspace, true, false, 1, beta_of(*drouter, begin));
    if (!dx) continue;
    const Tensor dx_chunk = dx->slice_rows(begin, end);
    grouped_matmul(context, s.gate_up, weights.gate_up, drows, s.offsets, matmul_workspace, false);
    routed_sum(context, drows, s.places, std::nullopt, dx_chunk);
    matmul(context, dlogits, weights.router, dx_chunk, matmul_workspace, false, false, 1, 1);
  }
}

}  // namespace mst
