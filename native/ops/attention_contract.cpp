// Checks the operands of attention; see attention.h and cached_attention.h.
#include <limits>

#include "cached_attention.h"
#include "contract.h"

namespace mst {
namespace {

// k and v must have whole heads, and q a multiple of their number.
void check_heads(const char* op, const Tensor& q, const Tensor& k, const Tensor& v, std::int64_t D) {
  MST_CHECK(D > 0 && q.cols() % D == 0 && k.cols() % D == 0, op, ": q ", q, " and k ", k, " must have whole heads of ", D, " columns");
  MST_CHECK(k.cols() > 0 && q.cols() % k.cols() == 0, op, ": the number of heads of q ", q, " must be a multiple of that of k ", k);
  require_shape(op, {"v", v}, k.rows(), k.cols(), {"k", k});
  require_dtype(op, {"k", k}, q.dtype);
  require_dtype(op, {"v", v}, q.dtype);
}

}  // namespace

AttentionGeometry check_attention(const char* op, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                                  const AttentionOptions& options) {
  const auto& [q, k, v, document_start] = inputs;
  const std::int64_t N = q.rows(), T = options.T, D = options.D;
  MST_CHECK(T > 0 && T <= std::numeric_limits<std::int32_t>::max() && N % T == 0, op, ": the rows of q ", q, " must be whole sequences of ",
            T);
  check_heads(op, q, k, v, D);
  const std::int64_t H = q.cols() / D;
  require_shape(op, {"k", k}, N, k.cols(), {"q", q});
  require_vector(op, {"document_start", document_start}, N, Dtype::i32, {"q", q});
  require_shape(op, {"out", out}, N, q.cols(), {"q", q});
  require_dtype(op, {"out", out}, q.dtype);
  require_vector(op, {"lse", lse}, N * H, compute_dtype(q.dtype), {"q", q});
  return {N, T, H, k.cols() / D, D, options.window, document_start ? document_start->as<const std::int32_t>() : nullptr};
}

void check_attention_gradients(const Tensor& dout, const AttentionInputs& inputs, const AttentionGradients& gradients) {
  const char* const op = "attention_backward";
  const auto check = [&](const Operand& gradient, const Operand& of) {
    require_shape(op, gradient, of.tensor->rows(), of.tensor->cols(), of);
    require_dtype(op, gradient, of.tensor->dtype);
  };
  check({"dout", dout}, {"q", inputs.q});
  check({"dq", gradients.dq}, {"q", inputs.q});
  check({"dk", gradients.dk}, {"k", inputs.k});
  check({"dv", gradients.dv}, {"v", inputs.v});
}

AttentionGeometry check_cached_attention(const AttentionInputs& inputs, const Tensor& out, std::int64_t position,
                                         const AttentionOptions& options) {
  const char* const op = "cached_attention";
  const auto& [q, k, v, document_start] = inputs;
  const std::int64_t N = q.rows(), S = k.rows(), D = options.D;
  MST_CHECK(D <= max_cached_head_size, op, ": head size ", D, " is above ", max_cached_head_size);
  MST_CHECK(options.T == S, op, ": k ", k, " must have T = ", options.T, " rows");
  MST_CHECK(!document_start, op, ": document_start is not supported");
  check_heads(op, q, k, v, D);
  MST_CHECK(position >= 0 && position <= S - N, op, ": position ", position, " and ", N, " queries go beyond the ", S, " rows of k ", k);
  require_shape(op, {"out", out}, N, q.cols(), {"q", q});
  require_dtype(op, {"out", out}, q.dtype);
  return {S, S, q.cols() / D, k.cols() / D, D, options.window, nullptr};
}

}  // namespace mst
