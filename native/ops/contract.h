// Checks of contracts, the same for both devices. An error names the op and both tensors.
#pragma once

#include "../runtime/tensor.h"

namespace mst {

// A tensor argument of an op and its name. It may be absent.
struct Operand {
  const char* name;
  const Tensor* tensor;

  Operand(const char* name, const Tensor& tensor) : name(name), tensor(&tensor) {}
  Operand(const char* name, const OptionalTensor& tensor) : name(name), tensor(tensor ? &*tensor : nullptr) {}

  friend std::ostream& operator<<(std::ostream& out, const Operand& operand) {
    return out << operand.name << ' ' << *operand.tensor;
  }
};

// Throws unless the operand is absent or has these rows and columns, which follow from another operand.
inline void require_shape(const char* op, const Operand& operand, std::int64_t rows, std::int64_t cols, const Operand& from) {
  if (!operand.tensor) return;
  MST_CHECK(operand.tensor->rows() == rows && operand.tensor->cols() == cols, op, ": ", operand, " must be (", rows, ",", cols, ") for ",
            from);
}

inline void require_dtype(const char* op, const Operand& operand, Dtype dtype) {
  if (!operand.tensor) return;
  MST_CHECK(operand.tensor->dtype == dtype, op, ": ", operand, " must be ", name_of(dtype));
}

// Throws unless a gradient that accumulates is in the compute dtype, or in bf16 for f32.
inline void require_gradient_dtype(const char* op, const Operand& operand, Dtype of) {
  if (!operand.tensor) return;
  const Dtype dtype = operand.tensor->dtype, wide = compute_dtype(of);
  MST_CHECK(dtype == wide || (dtype == Dtype::bf16 && wide == Dtype::f32), op, ": ", operand, " must be ", name_of(wide), " or bf16");
}

// Throws unless the operand is absent or has this many contiguous elements.
inline void require_vector(const char* op, const Operand& operand, std::int64_t size, Dtype dtype, const Operand& from) {
  if (!operand.tensor) return;
  MST_CHECK(operand.tensor->size() == size && operand.tensor->is_contiguous(), op, ": ", operand, " must be (", size, ") for ", from);
  require_dtype(op, operand, dtype);
}

inline void require_workspace(const char* op, const Workspace& workspace, std::size_t bytes) {
  MST_CHECK(workspace.bytes >= bytes, op, ": workspace has ", workspace.bytes, " bytes, needs ", bytes);
}

}  // namespace mst
