// Checks the operands of the smaller ops, in the order of their headers' names.
#include "bias.h"
#include "contract.h"
#include "elementwise.h"
#include "embedding.h"
#include "glu.h"
#include "nf4.h"
#include "random_normal.h"
#include "reduction.h"
#include "rms_norm.h"
#include "rope.h"
#include "softcap.h"

namespace mst {
namespace {

// Throws unless the operand has the rows, columns and dtype of another one.
void require_same(const char* op, const Operand& operand, const Operand& as) {
  require_shape(op, operand, as.tensor->rows(), as.tensor->cols(), as);
  require_dtype(op, operand, as.tensor->dtype);
}

// Checks a gradient (C,) that is summed over rows, and its workspace (P,C).
void require_column_sums(const char* op, const Operand& gradient, const Operand& partials, const Operand& of) {
  const std::int64_t C = of.tensor->cols();
  if (gradient.tensor) {
    require_gradient_dtype(op, gradient, of.tensor->dtype);
    require_vector(op, gradient, C, gradient.tensor->dtype, of);
  }
  if (partials.tensor) {
    require_shape(op, partials, partials.tensor->rows(), C, of);
    require_dtype(op, partials, compute_dtype(of.tensor->dtype));
    MST_CHECK(partials.tensor->rows() > 0 && partials.tensor->is_contiguous(), op, ": ", partials,
              " must be contiguous, with at least one row");
  }
}

void require_norm_weight(const char* op, const Tensor& weight, const Tensor& x) {
  MST_CHECK(weight.dtype == x.dtype || weight.dtype == Dtype::f32, op, ": weight ", weight, " must have the dtype of x ", x, " or float32");
  require_vector(op, {"weight", weight}, x.cols(), weight.dtype, {"x", x});
}

// Checks NF4 codes for as many elements as `of` has.
void require_nf4(const char* op, const Nf4& nf4, const Operand& of) {
  const std::int64_t n = of.tensor->size(), num_blocks = (n + nf4_block - 1) / nf4_block;
  MST_CHECK(of.tensor->is_contiguous(), op, ": ", of, " must be contiguous");
  require_vector(op, {"codes", nf4.codes}, (n + 1) / 2, Dtype::u8, of);
  require_vector(op, {"absmax", nf4.absmax}, num_blocks, Dtype::u8, of);
  require_vector(op, {"scales", nf4.scales}, (num_blocks + nf4_blocks_group - 1) / nf4_blocks_group, Dtype::f32, of);
  require_vector(op, {"offset", nf4.offset}, 1, Dtype::f32, of);
}

}  // namespace

void check_bias_forward(const Tensor& y, const Tensor& bias) {
  require_vector("bias_forward", {"bias", bias}, y.cols(), y.dtype, {"y", y});
}

void check_bias_backward(const Tensor& dy, const Tensor& dbias, const Tensor& partials) {
  require_column_sums("bias_backward", {"dbias", dbias}, {"partials", partials}, {"dy", dy});
}

void check_add(const Tensor& a, const Tensor& b, const Tensor& y) {
  require_same("add", {"b", b}, {"a", a});
  require_same("add", {"y", y}, {"a", a});
}

void check_add_to(const Tensor& x, const Tensor& y) {
  require_shape("add_to", {"y", y}, x.rows(), x.cols(), {"x", x});
  const bool is_rounded = x.dtype == Dtype::f32 && y.dtype == Dtype::bf16;
  MST_CHECK(is_rounded || y.dtype == x.dtype || y.dtype == compute_dtype(x.dtype), "add_to: x ", x, " cannot be added to y ", y);
}

void check_scale(const Tensor& x, const Tensor& y) {
  require_same("scale", {"y", y}, {"x", x});
}

void check_scale_by(const Tensor& x, const Tensor& factor, const OptionalTensor& divisor, const Tensor& y) {
  const Operand of{"x", x};
  require_same("scale_by", {"y", y}, of);
  require_vector("scale_by", {"factor", factor}, 1, compute_dtype(x.dtype), of);
  require_vector("scale_by", {"divisor", divisor}, 1, compute_dtype(x.dtype), of);
}

void check_cast(const Tensor& x, const Tensor& y) {
  require_shape("cast", {"y", y}, x.rows(), x.cols(), {"x", x});
  MST_CHECK((x.dtype == Dtype::i32) == (y.dtype == Dtype::i32), "cast: x ", x, " cannot be converted to y ", y);
}

void check_embedding_forward(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  const char* const op = "embedding_forward";
  require_vector(op, {"ids", ids}, ids.size(), Dtype::i32, {"y", y});
  require_shape(op, {"y", y}, ids.size(), weight.cols(), {"ids", ids});
  require_dtype(op, {"y", y}, weight.dtype);
}

void check_embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight) {
  const char* const op = "embedding_backward";
  require_vector(op, {"ids", ids}, ids.size(), Dtype::i32, {"dy", dy});
  require_shape(op, {"dy", dy}, ids.size(), dweight.cols(), {"ids", ids});
  require_gradient_dtype(op, {"dweight", dweight}, dy.dtype);
}

void check_glu_forward(const Tensor& gate, const Tensor& up, const Tensor& y) {
  const Operand as{"gate", gate};
  require_same("glu_forward", {"up", up}, as);
  require_same("glu_forward", {"y", y}, as);
}

void check_glu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate, const Tensor& dup,
                        const OptionalTensor& y) {
  const Operand as{"gate", gate};
  for (const Operand& operand : {Operand{"dy", dy}, {"up", up}, {"dgate", dgate}, {"dup", dup}}) require_same("glu_backward", operand, as);
  if (y) require_same("glu_backward", {"y", y}, as);
}

void check_random_normal(const Tensor& y) {
  MST_CHECK(y.is_contiguous(), "random_normal: y must be contiguous, but its rows of ", y.cols(), " are ", y.row_stride, " apart");
}

void check_sum_of_squares(const Tensor& x, const Tensor& sum, const Tensor& partials) {
  const char* const op = "sum_of_squares";
  MST_CHECK(x.is_contiguous(), op, ": x must be contiguous, but its rows of ", x.cols(), " are ", x.row_stride, " apart");
  require_vector(op, {"sum", sum}, 1, compute_dtype(x.dtype), {"x", x});
  require_vector(op, {"partials", partials}, partials.size(), Dtype::f64, {"x", x});
  MST_CHECK(partials.size() > 0, op, ": partials ", partials, " must not be empty");
}

void check_clip_factor(const Tensor& sums, const Tensor& norm, const Tensor& factor) {
  const Operand of{"sums", sums};
  require_vector("clip_factor", of, sums.size(), sums.dtype, of);
  require_vector("clip_factor", {"norm", norm}, 1, sums.dtype, of);
  require_vector("clip_factor", {"factor", factor}, 1, sums.dtype, of);
}

void check_nf4_quantize(const Tensor& x, const Nf4& to, const Tensor& largest) {
  require_nf4("nf4_quantize", to, {"x", x});
  require_vector("nf4_quantize", {"largest", largest}, to.absmax.size(), Dtype::f32, {"x", x});
}

void check_nf4_dequantize(const Nf4& from, const Tensor& y) {
  require_nf4("nf4_dequantize", from, {"y", y});
}

void check_rms_norm_forward(const Tensor& x, const Tensor& weight, const Tensor& y) {
  require_norm_weight("rms_norm_forward", weight, x);
  require_same("rms_norm_forward", {"y", y}, {"x", x});
}

void check_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
                             const OptionalTensor& partials) {
  const char* const op = "rms_norm_backward";
  require_norm_weight(op, weight, x);
  require_same(op, {"dx", dx}, {"x", x});
  require_same(op, {"dy", dy}, {"x", x});
  MST_CHECK(dweight.has_value() == partials.has_value(), op, ": dweight and partials must both be present or both be absent");
  require_column_sums(op, {"dweight", dweight}, {"partials", partials}, {"x", x});
}

void check_rope(const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
                const RopeOptions& options) {
  const auto [T, D] = std::array{options.T, options.D};
  const std::int64_t rotated = 2 * inverse_frequencies.size();
  const Operand of{"x", x};
  MST_CHECK(T > 0, "rope: T must be positive, got ", T);
  MST_CHECK(options.growth_positions > 0, "rope: growth_positions must be positive, got ", options.growth_positions);
  MST_CHECK(D > 0 && D % 2 == 0 && x.cols() % D == 0, "rope: x ", x, " must have whole heads of ", D, " columns");
  MST_CHECK(rotated <= D, "rope: ", rotated, " rotated columns are more than a head's ", D);
  require_vector("rope", {"inverse_frequencies", inverse_frequencies}, rotated / 2, Dtype::f64, of);
  require_vector("rope", {"document_start", document_start}, x.rows(), Dtype::i32, of);
  require_same("rope", {"y", y}, of);
}

void check_softcap_forward(const Tensor& x, const Tensor& y) {
  require_same("softcap_forward", {"y", y}, {"x", x});
}

void check_softcap_backward(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  require_same("softcap_backward", {"dy", dy}, {"y", y});
  require_same("softcap_backward", {"dx", dx}, {"y", y});
}

}  // namespace mst
