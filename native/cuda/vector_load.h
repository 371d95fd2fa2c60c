// Elements in vectors of 16 bytes, where alignment and length allow it: 4 f32 or 8 bf16; else one by one.
#pragma once

#include <initializer_list>

#include "launch.h"

namespace mst::cuda {

template <class T>
constexpr int vector_width = static_cast<int>(16 / sizeof(T));

// Whether all rows begin at multiples of 16 bytes.
inline bool has_aligned_rows(const Tensor& tensor) {
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % 16 != 0) return false;
  return tensor.rows() <= 1 || tensor.row_stride * static_cast<std::int64_t>(size_of(tensor.dtype)) % 16 == 0;
}

// Whether all rows of these tensors begin at multiples of 16 bytes and are whole vectors long.
inline bool is_vectorizable(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors)
    if (!has_aligned_rows(*tensor) || tensor->cols() * static_cast<std::int64_t>(size_of(tensor->dtype)) % 16 != 0) return false;
  return true;
}

template <class T, int width>
struct alignas(sizeof(T) * width) Vector {
  T elements[width];
};

template <int width, class T>
__device__ inline void load(const T* from, float (&to)[width]) {
  const Vector<T, width> vector = *reinterpret_cast<const Vector<T, width>*>(from);
#pragma unroll
  for (int i = 0; i < width; ++i) to[i] = to_float(vector.elements[i]);
}

template <int width, class T>
__device__ inline void store(const float (&from)[width], T* to) {
  Vector<T, width> vector;
#pragma unroll
  for (int i = 0; i < width; ++i) vector.elements[i] = from_float<T>(from[i]);
  *reinterpret_cast<Vector<T, width>*>(to) = vector;
}

// Calls body(n, c) for the first column c of every vector of every row n, over the whole grid.
template <int width, class Body>
__global__ void for_each_vector_kernel(std::int64_t rows, std::int64_t cols, Body body) {
  const std::int64_t per_row = cols / width, total = rows * per_row;
  for (std::int64_t i = grid_thread(); i < total; i += grid_threads()) {
    if (rows == 1)
      body(0, i * width);
    else
      body(i / per_row, i % per_row * width);
  }
}

template <int width, class Body>
void for_each_vector(std::int64_t rows, std::int64_t cols, const Body& body) {
  if (rows == 0 || cols == 0) return;
  launch(for_each_vector_kernel<width, Body>, grid_for(rows * cols / width, 256), 256, 0, rows, cols, body);
}

}  // namespace mst::cuda
