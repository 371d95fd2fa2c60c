// Checks the operands of the ops of experts; see routing.h, routed_rows.h and grouped_matmul.h.
#include <limits>

#include "grouped_matmul.h"
#include "routed_rows.h"
#include "routing.h"

namespace mst {
namespace {

void check_probabilities(const char* op, const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights) {
  const Operand of{"logits", logits};
  const std::int64_t M = logits.rows(), E = logits.cols(), k = experts.cols();
  require_shape(op, {"probabilities", probabilities}, M, E, of);
  require_dtype(op, {"probabilities", probabilities}, compute_dtype(logits.dtype));
  require_shape(op, {"experts", experts}, M, k, of);
  require_dtype(op, {"experts", experts}, Dtype::i32);
  MST_CHECK(k >= 1 && k <= E, op, ": experts ", experts, " must have 1 to ", E, " columns");
  require_shape(op, {"weights", weights}, M, k, of);
  require_dtype(op, {"weights", weights}, compute_dtype(logits.dtype));
}

// A vector of R numbers of pairs.
void require_pairs(const char* op, const Operand& pairs, std::int64_t R, const Operand& of) {
  require_vector(op, pairs, R, Dtype::i32, of);
  MST_CHECK(R <= std::numeric_limits<std::int32_t>::max(), op, ": ", of, " has too many rows");
}

// Throws unless the rows are M·k of C columns.
void check_rows(const char* op, const Operand& tokens, const Operand& rows) {
  const std::int64_t M = tokens.tensor->rows(), R = rows.tensor->rows();
  MST_CHECK(M > 0 && R > 0 && R % M == 0, op, ": the rows of ", rows, " must be a multiple of those of ", tokens);
  require_shape(op, rows, R, tokens.tensor->cols(), tokens);
  require_dtype(op, rows, tokens.tensor->dtype);
}

std::int64_t check_offsets(const char* op, const Tensor& offsets) {
  const std::int64_t E = offsets.size() - 1;
  MST_CHECK(E >= 1, op, ": offsets ", offsets, " must have 2 elements or more");
  require_vector(op, {"offsets", offsets}, E + 1, Dtype::i32, {"offsets", offsets});
  return E;
}

}  // namespace

void check_routing_forward(const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights) {
  check_probabilities("routing_forward", logits, probabilities, experts, weights);
}

void check_routing_backward(const Tensor& dweights, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                            const Tensor& dlogits) {
  const char* const op = "routing_backward";
  check_probabilities(op, dlogits, probabilities, experts, weights);
  require_shape(op, {"dweights", dweights}, weights.rows(), weights.cols(), {"weights", weights});
  require_dtype(op, {"dweights", dweights}, weights.dtype);
}

void check_routing_sort(const Tensor& experts, const Tensor& offsets, const Tensor& order, const Tensor& places) {
  const char* const op = "routing_sort";
  const Operand of{"experts", experts};
  require_dtype(op, of, Dtype::i32);
  MST_CHECK(experts.is_contiguous(), op, ": ", of, " must be contiguous");
  check_offsets(op, offsets);
  require_pairs(op, {"order", order}, experts.size(), of);
  require_pairs(op, {"places", places}, experts.size(), of);
}

void check_routed_gather(const Tensor& x, const Tensor& order, const Tensor& rows) {
  const char* const op = "routed_gather";
  check_rows(op, {"x", x}, {"rows", rows});
  require_pairs(op, {"order", order}, rows.rows(), {"rows", rows});
}

void check_routed_sum(const Tensor& rows, const Tensor& places, const OptionalTensor& weights, const Tensor& y) {
  const char* const op = "routed_sum";
  check_rows(op, {"y", y}, {"rows", rows});
  require_pairs(op, {"places", places}, rows.rows(), {"rows", rows});
  require_vector(op, {"weights", weights}, rows.rows(), compute_dtype(rows.dtype), {"rows", rows});
}

void check_routed_glu_backward(const RoutedGlu& rows, const Tensor& order, const Tensor& weights, const Tensor& dweights) {
  const char* const op = "routed_glu_backward";
  const Operand of{"gate", rows.gate};
  for (const Operand& operand : {Operand{"dy", rows.dy}, {"up", rows.up}, {"dgate", rows.dgate}, {"dup", rows.dup}, {"y", rows.y}}) {
    require_shape(op, operand, rows.gate.rows(), rows.gate.cols(), of);
    require_dtype(op, operand, rows.gate.dtype);
  }
  require_pairs(op, {"order", order}, rows.gate.rows(), of);
  require_vector(op, {"weights", weights}, rows.gate.rows(), compute_dtype(rows.gate.dtype), of);
  require_vector(op, {"dweights", dweights}, rows.gate.rows(), compute_dtype(rows.gate.dtype), of);
}

GroupedSizes check_grouped_matmul(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, bool transpose_b) {
  const char* const op = "grouped_matmul";
  const std::int64_t E = check_offsets(op, offsets), n = c.cols(), k = a.cols();
  require_shape(op, {"b", b}, E * (transpose_b ? n : k), transpose_b ? k : n, {"c", c});
  require_shape(op, {"c", c}, a.rows(), n, {"a", a});
  require_dtype(op, {"b", b}, a.dtype);
  require_dtype(op, {"c", c}, a.dtype);
  return {E, a.rows(), n, k};
}

GroupedSizes check_grouped_matmul_weights(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& offsets, double beta) {
  const char* const op = "grouped_matmul_weights";
  const std::int64_t E = check_offsets(op, offsets);
  require_shape(op, {"b", b}, a.rows(), b.cols(), {"a", a});
  require_shape(op, {"c", c}, E * a.cols(), b.cols(), {"a", a});
  require_dtype(op, {"b", b}, a.dtype);
  require_gradient_dtype(op, {"c", c}, a.dtype);
  MST_CHECK(beta == 0 || beta == 1, op, ": beta must be 0 or 1, got ", beta);
  return {E, a.cols(), b.cols(), a.rows()};
}

}  // namespace mst
