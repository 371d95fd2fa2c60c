// Checks the operands of the cross-entropies; see cross_entropy.h.
#include "cross_entropy.h"

namespace mst {

void check_loss(const char* op, const Operand& of, const LossTargets& targets, const TokenOutputs& outputs) {
  const std::int64_t M = of.tensor->rows();
  const Dtype wide = compute_dtype(of.tensor->dtype);
  require_vector(op, {"targets", targets.ids}, M, Dtype::i32, of);
  require_vector(op, {"weights", targets.weights}, M, wide, of);
  require_vector(op, {"losses", outputs.losses}, M, wide, of);
  require_vector(op, {"lse", outputs.lse}, M, wide, of);
  require_vector(op, {"log_probability", outputs.log_probability}, M, wide, of);
  require_vector(op, {"entropy", outputs.entropy}, M, wide, of);
  require_vector(op, {"correct", outputs.correct}, M, wide, of);
}

void check_loss_sum(const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss) {
  const Operand from{"losses", losses};
  require_vector("cross_entropy_sum", from, losses.size(), losses.dtype, from);
  require_vector("cross_entropy_sum", {"token_weights", token_weights}, losses.size(), losses.dtype, from);
  require_vector("cross_entropy_sum", {"loss", loss}, 1, losses.dtype, from);
}

void check_loss_divisor(const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor) {
  const Operand from{"targets", targets};
  require_vector("cross_entropy_divisor", from, targets.size(), Dtype::i32, from);
  require_vector("cross_entropy_divisor", {"token_weights", token_weights}, targets.size(), divisor.dtype, from);
  require_vector("cross_entropy_divisor", {"divisor", divisor}, 1, divisor.dtype, from);
}

}  // namespace mst
