// The gated MLP over mini-sequences; see chunked_mlp.h.
#include "chunked_mlp.h"

#include <algorithm>

#include "matmul.h"

namespace mst {
namespace {

// Whether b's rows follow a's in memory, so that both are one matrix of twice the rows.
bool follows(const Tensor& a, const Tensor& b) {
  return a.is_contiguous() && b.is_contiguous() && b.data == a.slice_rows(a.rows(), a.rows()).data;
}

Tensor joined(const Tensor& a) {
  Tensor both = a;
  both.shape[0] *= 2;
  return both;
}

// gate_up (M,2F) = x (M,C) · [gate; up]ᵀ
void gate_up_product(Context& context, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& gate_up,
                     const Workspace& workspace) {
  const std::int64_t F = gate.rows();
  if (follows(gate, up)) return matmul(context, x, joined(gate), gate_up, workspace, false, true, 1, 0);
  matmul(context, x, gate, gate_up.slice_cols(0, F), workspace, false, true, 1, 0);
  matmul(context, x, up, gate_up.slice_cols(F, 2 * F), workspace, false, true, 1, 0);
}

// The adapters of one call, chunk by chunk.
struct Adapters {
  Context& context;
  const OptionalLowRank &gate, &up, &down;
  Dropout dropout;
  LowRankScratch scratch;
  const Workspace& workspace;

  static Adapters of(Context& context, const OptionalLowRank& gate, const OptionalLowRank& up, const OptionalLowRank& down,
                     const OptionalTensor& scratch, const Dropout& dropout, std::int64_t M, const Workspace& workspace) {
    std::int64_t max_rank = 0;
    for (const OptionalLowRank* adapter : {&gate, &up, &down})
      if (*adapter) max_rank = std::max(max_rank, (*adapter)->a.rows());
    return {context, gate, up, down, dropout, {scratch, M, max_rank}, workspace};
  }
  // z += the adapter's part of a projection of x
  void forward(const OptionalLowRank& adapter, const Tensor& x, const Tensor& z, std::int64_t first_row) const {
    if (adapter) low_rank_forward(context, x, *adapter, z, first_row, dropout, scratch, workspace);
  }
  void backward_input(const OptionalLowRank& adapter, const Tensor& dz, const Tensor& dx, std::int64_t first_row) const {
    if (adapter) low_rank_backward_input(context, dz, *adapter, dx, first_row, dropout, scratch, workspace);
  }
  void backward_weights(const OptionalLowRank& adapter, const Tensor& dz, const Tensor& x, std::int64_t first_row) const {
    if (adapter) low_rank_backward_weights(context, dz, x, *adapter, first_row, dropout, scratch, workspace);
  }
};

void gate_up_forward(Context& context, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& gate_up, std::int64_t first_row,
                     const Adapters& adapters) {
  const std::int64_t F = gate.rows();
  gate_up_product(context, x, gate, up, gate_up, adapters.workspace);
  adapters.forward(adapters.gate, x, gate_up.slice_cols(0, F), first_row);
  adapters.forward(adapters.up, x, gate_up.slice_cols(F, 2 * F), first_row);
}

}  // namespace

void chunked_mlp_forward(Context& context, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, const Tensor& y,
                         const Tensor& gate_up, const Tensor& h, const Workspace& matmul_workspace, Activation activation,
                         const OptionalLowRank& gate_adapter, const OptionalLowRank& up_adapter, const OptionalLowRank& down_adapter,
                         const OptionalTensor& adapter_scratch, double dropout_probability, std::int64_t seed, std::int64_t step) {
  const std::int64_t N = x.rows(), F = gate.rows(), M = h.rows();
  const Adapters adapters = Adapters::of(context, gate_adapter, up_adapter, down_adapter, adapter_scratch,
                                         {dropout_probability, seed, step}, M, matmul_workspace);
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const Tensor chunk = gate_up.rows() == N ? gate_up.slice_rows(begin, end) : gate_up.slice_rows(0, end - begin);
    const Tensor h_chunk = h.slice_rows(0, end - begin);
    gate_up_forward(context, x.slice_rows(begin, end), gate, up, chunk, begin, adapters);
    glu_forward(context, chunk.slice_cols(0, F), chunk.slice_cols(F, 2 * F), h_chunk, activation);
    matmul(context, h_chunk, down, y.slice_rows(begin, end), matmul_workspace, false, true, 1, 0);
    adapters.forward(adapters.down, h_chunk, y.slice_rows(begin, end), begin);
  }
}

void chunked_mlp_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                          const OptionalTensor& dx, const OptionalTensor& dgate, const OptionalTensor& dup, const OptionalTensor& ddown,
                          const Tensor& gate_up, const Tensor& dh, const Workspace& matmul_workspace, bool gate_up_saved,
                          bool overwrite_dgate, bool overwrite_dup, bool overwrite_ddown, Activation activation,
                          const OptionalLowRank& gate_adapter, const OptionalLowRank& up_adapter, const OptionalLowRank& down_adapter,
                          const OptionalTensor& adapter_scratch, double dropout_probability, std::int64_t seed, std::int64_t step) {
  const std::int64_t N = x.rows(), F = gate.rows(), M = dh.rows();
  const Adapters adapters = Adapters::of(context, gate_adapter, up_adapter, down_adapter, adapter_scratch,
                                         {dropout_probability, seed, step}, M, matmul_workspace);
  // weight gradients accumulate over chunks; the first chunk overwrites memory that is new
  const auto add_product = [&](const Tensor& dchunk, const Tensor& input, const Tensor& dweight, bool overwrite) {
    matmul(context, dchunk, input, dweight, matmul_workspace, true, false, 1, overwrite ? 0 : 1);
  };
  for (std::int64_t begin = 0; begin < N; begin += M) {
    const std::int64_t end = std::min(begin + M, N);  // the last chunk may be shorter
    const bool first = begin == 0;
    const Tensor x_chunk = x.slice_rows(begin, end), dy_chunk = dy.slice_rows(begin, end);
    const Tensor chunk = gate_up_saved ? gate_up.slice_rows(begin, end) : gate_up.slice_rows(0, end - begin);
    const Tensor gate_half = chunk.slice_cols(0, F), up_half = chunk.slice_cols(F, 2 * F), dh_chunk = dh.slice_rows(0, end - begin);
    if (!gate_up_saved) gate_up_forward(context, x_chunk, gate, up, chunk, begin, adapters);

    matmul(context, dy_chunk, down, dh_chunk, matmul_workspace, false, false, 1, 0);
    adapters.backward_input(adapters.down, dy_chunk, dh_chunk, begin);
    glu_backward(context, dh_chunk, gate_half, up_half, gate_half, up_half, dh_chunk, activation);  // gate → dgate, up → dup, dh → h
    adapters.backward_weights(adapters.down, dy_chunk, dh_chunk, begin);
    if (ddown) add_product(dy_chunk, dh_chunk, *ddown, first && overwrite_ddown);

    if (dgate && dup && follows(*dgate, *dup) && (overwrite_dgate == overwrite_dup || !first)) {
      add_product(chunk, x_chunk, joined(*dgate), first && overwrite_dgate);
    } else {
      if (dgate) add_product(gate_half, x_chunk, *dgate, first && overwrite_dgate);
      if (dup) add_product(up_half, x_chunk, *dup, first && overwrite_dup);
    }
    adapters.backward_weights(adapters.gate, gate_half, x_chunk, begin);
    adapters.backward_weights(adapters.up, up_half, x_chunk, begin);
    if (!dx) continue;
    const Tensor dx_chunk = dx->slice_rows(begin, end);
    if (follows(gate, up)) {
      matmul(context, chunk, joined(gate), dx_chunk, matmul_workspace, false, false, 1, 0);
    } else {
      matmul(context, gate_half, gate, dx_chunk, matmul_workspace, false, false, 1, 0);
      matmul(context, up_half, up, dx_chunk, matmul_workspace, false, false, 1, 1);
    }
    adapters.backward_input(adapters.gate, gate_half, dx_chunk, begin);
    adapters.backward_input(adapters.up, up_half, dx_chunk, begin);
  }
}

}  // namespace mst
