// Head and cross-entropy over mini-sequences; see chunked_cross_entropy.h.
#include "chunked_cross_entropy.h"

#include <algorithm>

#include "elementwise.h"
#include "matmul.h"

namespace mst {
namespace {

// Elements [begin, end) of a vector (N,).
Tensor part(const Tensor& vector, std::int64_t begin, std::int64_t end) {
  Tensor view = vector.slice_cols(begin, end);
  view.rank = 1;
  view.shape = {end - begin};
  return view;
}

OptionalTensor part(const OptionalTensor& vector, std::int64_t begin, std::int64_t end) {
  return vector ? OptionalTensor(part(*vector, begin, end)) : std::nullopt;
}

LossTargets part(const LossTargets& targets, std::int64_t begin, std::int64_t end) {
  return {part(targets.ids, begin, end), part(targets.weights, begin, end)};
}

TokenOutputs part(const TokenOutputs& outputs, std::int64_t begin, std::int64_t end) {
  const auto& [losses, lse, log_probability, entropy, correct] = outputs;
  return {part(losses, begin, end), part(lse, begin, end), part(log_probability, begin, end), part(entropy, begin, end),
          part(correct, begin, end)};
}

void check(const Tensor& hidden, const Head& head, const LossTargets& targets, const TokenOutputs& outputs, const HeadGradients& gradients,
           const Tensor& logits) {
  const char* const op = "chunked_cross_entropy";
  const Operand of_hidden{"hidden", hidden}, of_weight{"weight", head.weight};
  const std::int64_t N = hidden.rows(), C = hidden.cols(), V = head.weight.rows();
  const Dtype dtype = hidden.dtype;
  require_shape(op, of_weight, V, C, of_hidden);
  require_dtype(op, of_weight, dtype);
  require_dtype(op, {"logits", logits}, dtype);
  MST_CHECK(logits.cols() >= V && (logits.rows() > 0 || N == 0), op, ": logits ", logits, " cannot hold a row for weight ", head.weight);
  check_loss(op, of_hidden, targets, outputs);
  require_shape(op, {"dhidden", gradients.dhidden}, N, C, of_hidden);
  require_dtype(op, {"dhidden", gradients.dhidden}, dtype);
  require_shape(op, {"dweight", gradients.dweight}, V, C, of_weight);
  require_gradient_dtype(op, {"dweight", gradients.dweight}, dtype);
  if (!head.low_rank) {
    MST_CHECK(!gradients.dlow && !gradients.dlow_weight, op, ": dlow and dlow_weight need a low-rank part");
    return;
  }
  const auto& [low, low_weight] = *head.low_rank;
  const std::int64_t r = low.cols();
  require_shape(op, {"low", low}, N, r, of_hidden);
  require_dtype(op, {"low", low}, dtype);
  require_shape(op, {"low-rank weight", low_weight}, V, r, {"low", low});
  require_dtype(op, {"low-rank weight", low_weight}, dtype);
  require_shape(op, {"dlow", gradients.dlow}, N, r, {"low", low});
  require_dtype(op, {"dlow", gradients.dlow}, dtype);
  require_shape(op, {"dlow_weight", gradients.dlow_weight}, V, r, {"low", low});
  require_gradient_dtype(op, {"dlow_weight", gradients.dlow_weight}, dtype);
}

}  // namespace

void chunked_cross_entropy(Context& context, const Tensor& hidden, const Head& head, const LossTargets& targets,
                           const TokenOutputs& outputs, const HeadGradients& gradients, const Tensor& logits,
                           const Workspace& matmul_workspace, const LossOptions& options) {
  check(hidden, head, targets, outputs, gradients, logits);
  const auto& [scale, dhidden, dweight, dlow, dlow_weight] = gradients;
  const Tensor& weight = head.weight;
  const std::int64_t N = hidden.rows(), M = logits.rows(), V = weight.rows();
  const bool wants_gradients = dhidden || dweight || dlow || dlow_weight;
  if (N == 0 && dweight) fill(context, *dweight, 0);
  if (N == 0 && dlow_weight) fill(context, *dlow_weight, 0);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const Tensor hidden_chunk = hidden.slice_rows(begin, end), chunk = logits.slice_rows(0, end - begin).slice_cols(0, V);
    matmul(context, hidden_chunk, weight, chunk, matmul_workspace, false, true, 1, 0);
    if (head.low_rank) {
      const auto& [low, low_weight] = *head.low_rank;
      matmul(context, low.slice_rows(begin, end), low_weight, chunk, matmul_workspace, false, true, 1, 1);
    }
    cross_entropy(context, chunk, part(targets, begin, end), part(outputs, begin, end), options, begin, wants_gradients);
    // now chunk holds dlogits
    const double beta = begin == 0 ? 0 : 1;
    if (dhidden) matmul(context, chunk, weight, dhidden->slice_rows(begin, end), matmul_workspace, false, false, scale, 0);
    if (dweight) matmul(context, chunk, hidden_chunk, *dweight, matmul_workspace, true, false, scale, beta);
    if (dlow) matmul(context, chunk, head.low_rank->weight, dlow->slice_rows(begin, end), matmul_workspace, false, false, scale, 0);
    if (dlow_weight)
      matmul(context, chunk, head.low_rank->low.slice_rows(begin, end), *dlow_weight, matmul_workspace, true, false, scale, beta);
  }
}

}  // namespace mst
