// A view of device memory: pointer, shape and dtype. It owns nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>

#include "check.h"
#include "dtype.h"

namespace mst {

// Kernels see every tensor as rows() rows of cols() adjacent elements, whatever its rank: activations (B,T,C) are N = B·T rows of C.
// Consecutive rows are row_stride elements apart: cols() in a contiguous tensor, more in a view of some columns.
struct Tensor {
  static constexpr int max_rank = 4;

  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  int rank = 0;  // 0: a scalar, one row of one element
  std::array<std::int64_t, max_rank> shape{};
  std::int64_t row_stride = 1;

  std::int64_t cols() const {
    return rank == 0 ? 1 : shape[rank - 1];
  }
  std::int64_t rows() const {
    std::int64_t product = 1;
    for (int i = 0; i + 1 < rank; ++i) product *= shape[i];
    return product;
  }
  std::int64_t size() const {
    return rows() * cols();
  }
  bool is_contiguous() const {
    return row_stride == cols() || rows() == 1;
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  template <class T>
  T* row(std::int64_t n) const {
    return as<T>() + n * row_stride;
  }

  // Rows [begin, end) as a view (end - begin, cols()).
  Tensor slice_rows(std::int64_t begin, std::int64_t end) const {
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * row_stride * static_cast<std::int64_t>(size_of(dtype));
    view.rank = 2;
    view.shape = {end - begin, cols()};
    return view;
  }
  // Columns [begin, end) of every row as a view (rows(), end - begin).
  Tensor slice_cols(std::int64_t begin, std::int64_t end) const {
    Tensor view = *this;
    view.data = static_cast<char*>(data) + begin * static_cast<std::int64_t>(size_of(dtype));
    view.rank = 2;
    view.shape = {rows(), end - begin};
    return view;
  }

  friend std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
    out << name_of(tensor.dtype) << '(';
    for (int i = 0; i < tensor.rank; ++i) out << (i ? "," : "") << tensor.shape[i];
    return out << ')';
  }
};

// An argument that may be absent (JavaScript: null).
using OptionalTensor = std::optional<Tensor>;

// Scratch memory of a kernel, taken from the arena by the caller; contents are garbage before and after. At least 256-byte aligned.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

}  // namespace mst
