// The gated MLP over mini-sequences; see chunked_mlp.h.
#include "chunked_mlp.h"

#include <algorithm>

#include "contract.h"
#include "matmul.h"

namespace mst {
namespace {

// Whether b's rows follow a's in memory, so that both together are one matrix.
bool follows(const Tensor& a, const Tensor& b) {
  return a.is_contiguous() && b.is_contiguous() && b.data == a.slice_rows(a.rows(), a.rows()).data;
}

Tensor joined(const Tensor& a) {
  Tensor both = a;
  both.shape[0] *= 2;
  return both;
}

// The projections of one call, with their adapters, for a chunk of at most M rows at a time. first_row: the chunk's first row in the whole.
class Projections {
 public:
  Projections(Context& context, const MlpWeights& weights, const MlpAdapters& adapters, std::int64_t M, const Workspace& workspace)
      : context_(context),
        weights_(weights),
        adapters_(adapters),
        scratch_{adapters.scratch, M, max_rank(adapters)},
        workspace_(workspace) {}

  // gate_up (M,2F) = x (M,C) · [gate; up]ᵀ
  void gate_up_forward(const Tensor& x, const Tensor& gate_up, std::int64_t first_row) const {
    const auto& [gate, up, down] = weights_;
    const Tensor gate_half = gate_up.slice_cols(0, F()), up_half = gate_up.slice_cols(F(), 2 * F());
    if (follows(gate, up)) {
      matmul(context_, x, joined(gate), gate_up, workspace_, false, true, 1, 0);
    } else {
      matmul(context_, x, gate, gate_half, workspace_, false, true, 1, 0);
      matmul(context_, x, up, up_half, workspace_, false, true, 1, 0);
    }
    add_adapter(adapters_.gate, x, gate_half, first_row);
    add_adapter(adapters_.up, x, up_half, first_row);
  }
  // y (M,C) = h (M,F) · downᵀ
  void down_forward(const Tensor& h, const Tensor& y, std::int64_t first_row) const {
    matmul(context_, h, weights_.down, y, workspace_, false, true, 1, 0);
    add_adapter(adapters_.down, h, y, first_row);
  }

  // dh (M,F) = dy (M,C) · down
  void down_backward_input(const Tensor& dy, const Tensor& dh, std::int64_t first_row) const {
    matmul(context_, dy, weights_.down, dh, workspace_, false, false, 1, 0);
    add_adapter_input(adapters_.down, dy, dh, first_row);
  }
  // dx (M,C) = dgate_up (M,2F) · [gate; up]
  void gate_up_backward_input(const Tensor& dgate_up, const Tensor& dx, std::int64_t first_row) const {
    const auto& [gate, up, down] = weights_;
    const Tensor dgate = dgate_up.slice_cols(0, F()), dup = dgate_up.slice_cols(F(), 2 * F());
    if (follows(gate, up)) {
      matmul(context_, dgate_up, joined(gate), dx, workspace_, false, false, 1, 0);
    } else {
      matmul(context_, dgate, gate, dx, workspace_, false, false, 1, 0);
      matmul(context_, dup, up, dx, workspace_, false, false, 1, 1);
    }
    add_adapter_input(adapters_.gate, dgate, dx, first_row);
    add_adapter_input(adapters_.up, dup, dx, first_row);
  }

  // Gradients of weights accumulate over the chunks. The first chunk overwrites memory that holds garbage.
  void down_backward_weights(const Tensor& dy, const Tensor& h, const MlpGradients& gradients, std::int64_t first_row) const {
    add_adapter_weights(adapters_.down, dy, h, first_row);
    if (gradients.ddown) add_product(dy, h, *gradients.ddown, first_row);
  }
  void gate_up_backward_weights(const Tensor& dgate_up, const Tensor& x, const MlpGradients& gradients, std::int64_t first_row) const {
    const auto& [dx, dgate, dup, ddown] = gradients;
    const Tensor gate_half = dgate_up.slice_cols(0, F()), up_half = dgate_up.slice_cols(F(), 2 * F());
    const bool are_alike = dgate && dup && (dgate->overwrite == dup->overwrite || first_row > 0);
    if (are_alike && follows(dgate->gradient, dup->gradient)) {
      add_product(dgate_up, x, {joined(dgate->gradient), dgate->overwrite}, first_row);
    } else {
      if (dgate) add_product(gate_half, x, *dgate, first_row);
      if (dup) add_product(up_half, x, *dup, first_row);
    }
    add_adapter_weights(adapters_.gate, gate_half, x, first_row);
    add_adapter_weights(adapters_.up, up_half, x, first_row);
  }

 private:
  static std::int64_t max_rank(const MlpAdapters& adapters) {
    std::int64_t rank = 0;
    for (const OptionalLowRank* adapter : {&adapters.gate, &adapters.up, &adapters.down})
      if (*adapter) rank = std::max(rank, (*adapter)->a.rows());
    return rank;
  }
  std::int64_t F() const {
    return weights_.gate.rows();
  }

  void add_product(const Tensor& dchunk, const Tensor& input, const WeightGradient& to, std::int64_t first_row) const {
    matmul(context_, dchunk, input, to.gradient, workspace_, true, false, 1, first_row == 0 && to.overwrite ? 0 : 1);
  }
  // z += the adapter's part of a projection of x
  void add_adapter(const OptionalLowRank& adapter, const Tensor& x, const Tensor& z, std::int64_t first_row) const {
    if (adapter) low_rank_forward(context_, x, *adapter, z, first_row, adapters_.dropout, scratch_, workspace_);
  }
  void add_adapter_input(const OptionalLowRank& adapter, const Tensor& dz, const Tensor& dx, std::int64_t first_row) const {
    if (adapter) low_rank_backward_input(context_, dz, *adapter, dx, first_row, adapters_.dropout, scratch_, workspace_);
  }
  void add_adapter_weights(const OptionalLowRank& adapter, const Tensor& dz, const Tensor& x, std::int64_t first_row) const {
    if (adapter) low_rank_backward_weights(context_, dz, x, *adapter, first_row, adapters_.dropout, scratch_, workspace_);
  }

  Context& context_;
  const MlpWeights& weights_;
  const MlpAdapters& adapters_;
  const LowRankScratch scratch_;
  const Workspace& workspace_;
};

// Checks what forward and backward have in common. `of` is x, with all rows of the call.
void check(const char* op, const Operand& of, const MlpWeights& weights, const GateUp& gate_up, const Operand& h) {
  const std::int64_t N = of.tensor->rows(), C = of.tensor->cols(), F = weights.gate.rows(), M = h.tensor->rows();
  const Operand gate{"gate", weights.gate}, up{"up", weights.up}, down{"down", weights.down}, both{"gate_up", gate_up.memory};
  require_shape(op, gate, F, C, of);
  require_shape(op, up, F, C, gate);
  require_shape(op, down, C, F, gate);
  require_shape(op, h, M, F, gate);
  MST_CHECK(M > 0 || N == 0, op, ": ", h, " must have rows");
  require_shape(op, both, gate_up.is_kept ? N : gate_up.memory.rows(), 2 * F, gate_up.is_kept ? of : gate);
  MST_CHECK(gate_up.is_kept || gate_up.memory.rows() >= std::min(N, M), op, ": ", both, " has fewer rows than ", h);
  for (const Operand& operand : {gate, up, down, h, both}) require_dtype(op, operand, of.tensor->dtype);
}

void require_gradient(const char* op, const char* name, const std::optional<WeightGradient>& gradient, const Tensor& weight) {
  if (!gradient) return;
  require_shape(op, {name, gradient->gradient}, weight.rows(), weight.cols(), {"its weight", weight});
  require_gradient_dtype(op, {name, gradient->gradient}, weight.dtype);
}

// Rows [begin, end) of gate and up.
Tensor chunk_of(const GateUp& gate_up, std::int64_t begin, std::int64_t end) {
  return gate_up.is_kept ? gate_up.memory.slice_rows(begin, end) : gate_up.memory.slice_rows(0, end - begin);
}

}  // namespace

void chunked_mlp_forward(Context& context, const Tensor& x, const MlpWeights& weights, const Tensor& y, const GateUp& gate_up,
                         const Tensor& h, const Workspace& matmul_workspace, Activation activation, const MlpAdapters& adapters) {
  check("chunked_mlp_forward", {"x", x}, weights, gate_up, {"h", h});
  require_shape("chunked_mlp_forward", {"y", y}, x.rows(), x.cols(), {"x", x});
  require_dtype("chunked_mlp_forward", {"y", y}, x.dtype);
  const std::int64_t N = x.rows(), F = weights.gate.rows(), M = h.rows();
  const Projections projections(context, weights, adapters, M, matmul_workspace);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const Tensor chunk = chunk_of(gate_up, begin, end), h_chunk = h.slice_rows(0, end - begin);
    projections.gate_up_forward(x.slice_rows(begin, end), chunk, begin);
    glu_forward(context, chunk.slice_cols(0, F), chunk.slice_cols(F, 2 * F), h_chunk, activation);
    projections.down_forward(h_chunk, y.slice_rows(begin, end), begin);
  }
}

void chunked_mlp_backward(Context& context, const Tensor& dy, const Tensor& x, const MlpWeights& weights, const MlpGradients& gradients,
                          const GateUp& gate_up, const Tensor& dh, const Workspace& matmul_workspace, Activation activation,
                          const MlpAdapters& adapters) {
  const char* const op = "chunked_mlp_backward";
  check(op, {"x", x}, weights, gate_up, {"dh", dh});
  for (const Operand& operand : {Operand{"dy", dy}, {"dx", gradients.dx}}) {
    require_shape(op, operand, x.rows(), x.cols(), {"x", x});
    require_dtype(op, operand, x.dtype);
  }
  require_gradient(op, "dgate", gradients.dgate, weights.gate);
  require_gradient(op, "dup", gradients.dup, weights.up);
  require_gradient(op, "ddown", gradients.ddown, weights.down);
  const std::int64_t N = x.rows(), F = weights.gate.rows(), M = dh.rows();
  const Projections projections(context, weights, adapters, M, matmul_workspace);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const Tensor x_chunk = x.slice_rows(begin, end), dy_chunk = dy.slice_rows(begin, end);
    const Tensor chunk = chunk_of(gate_up, begin, end), dh_chunk = dh.slice_rows(0, end - begin);
    const Tensor gate_half = chunk.slice_cols(0, F), up_half = chunk.slice_cols(F, 2 * F);
    if (!gate_up.is_kept) projections.gate_up_forward(x_chunk, chunk, begin);
    projections.down_backward_input(dy_chunk, dh_chunk, begin);
    glu_backward(context, dh_chunk, gate_half, up_half, gate_half, up_half, dh_chunk, activation);  // gate → dgate, up → dup, dh → h
    projections.down_backward_weights(dy_chunk, dh_chunk, gradients, begin);
    projections.gate_up_backward_weights(chunk, x_chunk, gradients, begin);
    if (gradients.dx) projections.gate_up_backward_input(chunk, gradients.dx->slice_rows(begin, end), begin);
  }
}

}  // namespace mst
