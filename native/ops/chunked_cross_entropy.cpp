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

}  // namespace

void chunked_cross_entropy(Context& context, const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                           const OptionalTensor& token_weights, const Tensor& losses, const OptionalTensor& lse,
                           const OptionalTensor& log_probability, const OptionalTensor& entropy, const OptionalTensor& correct,
                           const OptionalTensor& dhidden, const OptionalTensor& dweight, const Tensor& logits,
                           const Workspace& matmul_workspace, double scale, std::int64_t ignore_index, double label_smoothing,
                           double z_loss, double softcap, const OptionalTensor& low, const OptionalTensor& low_weight,
                           const OptionalTensor& dlow, const OptionalTensor& dlow_weight) {
  const std::int64_t N = hidden.rows(), M = logits.rows(), V = weight.rows();
  const bool wants_gradients = dhidden || dweight || dlow || dlow_weight;
  if (N == 0 && dweight) fill(context, *dweight, 0);
  if (N == 0 && dlow_weight) fill(context, *dlow_weight, 0);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const Tensor hidden_chunk = hidden.slice_rows(begin, end), chunk = logits.slice_rows(0, end - begin).slice_cols(0, V);
    matmul(context, hidden_chunk, weight, chunk, matmul_workspace, false, true, 1, 0);
    if (low) matmul(context, low->slice_rows(begin, end), *low_weight, chunk, matmul_workspace, false, true, 1, 1);
    cross_entropy(context, chunk, part(targets, begin, end), part(token_weights, begin, end), part(losses, begin, end),
                  part(lse, begin, end), part(log_probability, begin, end), part(entropy, begin, end), part(correct, begin, end), begin,
                  ignore_index, label_smoothing, z_loss, softcap, wants_gradients);
    // chunk holds dlogits now
    if (dhidden) matmul(context, chunk, weight, dhidden->slice_rows(begin, end), matmul_workspace, false, false, scale, 0);
    if (dweight) matmul(context, chunk, hidden_chunk, *dweight, matmul_workspace, true, false, scale, begin == 0 ? 0 : 1);
    if (dlow) matmul(context, chunk, *low_weight, dlow->slice_rows(begin, end), matmul_workspace, false, false, scale, 0);
    if (dlow_weight)
      matmul(context, chunk, low->slice_rows(begin, end), *dlow_weight, matmul_workspace, true, false, scale, begin == 0 ? 0 : 1);
  }
}

}  // namespace mst
