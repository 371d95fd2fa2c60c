// Elements in vectors of 16 bytes, where alignment and length allow it: 4 f32 or 8 bf16; else one by one.
#pragma once

#include <cstring>
#include <initializer_list>
#include <type_traits>

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
struct alignas(sizeof(T) * width < 16 ? sizeof(T) * width : 16) Vector {
  T elements[width];
};

// What a vector is moved as.
template <std::size_t bytes>
using Word = std::conditional_t<bytes % 16 == 0, uint4,
                                std::conditional_t<bytes == 8, uint2, std::conditional_t<bytes == 4, unsigned, unsigned short>>>;

template <int width, class T>
__device__ inline Vector<T, width> load_vector(const T* from) {
  using W = Word<sizeof(Vector<T, width>)>;
  Vector<T, width> vector;
#pragma unroll
  for (std::size_t i = 0; i < sizeof vector / sizeof(W); ++i) {
    const W word = reinterpret_cast<const W*>(from)[i];
    std::memcpy(reinterpret_cast<char*>(&vector) + i * sizeof word, &word, sizeof word);
  }
  return vector;
}

template <int width, class T>
__device__ inline void store_vector(const Vector<T, width>& vector, T* to) {
  using W = Word<sizeof vector>;
#pragma unroll
  for (std::size_t i = 0; i < sizeof vector / sizeof(W); ++i) {
    W word;
    std::memcpy(&word, reinterpret_cast<const char*>(&vector) + i * sizeof word, sizeof word);
    __stwb(reinterpret_cast<W*>(to) + i, word);  // an assignment may become one of each element
  }
}

template <int width, class T>
__device__ inline void to_floats(const Vector<T, width>& vector, float (&to)[width]) {
#pragma unroll
  for (int i = 0; i < width; ++i) to[i] = to_float(vector.elements[i]);
}

template <int width, class T>
__device__ inline void load(const T* from, float (&to)[width]) {
  to_floats(load_vector<width>(from), to);
}

template <int width, class T>
__device__ inline void store(const float (&from)[width], T* to) {
  Vector<T, width> vector;
#pragma unroll
  for (int i = 0; i < width; ++i) vector.elements[i] = from_float<T>(from[i]);
  store_vector(vector, to);
}

// Calls body(n, c) for the first column c of every vector of every row n, over the whole grid.
template <int width, class Body>
__global__ void for_each_vector_kernel(std::int64_t rows, std::int64_t cols, Body body) {
  const std::int64_t per_row = cols / width, row_step = grid_threads() / per_row, step = grid_threads() % per_row;
  std::int64_t n = grid_thread() / per_row, i = grid_thread() % per_row;  // division is slow: once
  while (n < rows) {
    body(n, i * width);
    n += row_step;
    i += step;
    if (i >= per_row) {
      i -= per_row;
      ++n;
    }
  }
}

template <int width, class Body>
void for_each_vector(std::int64_t rows, std::int64_t cols, const Body& body) {
  if (rows == 0 || cols == 0) return;
  launch(for_each_vector_kernel<width, Body>, grid_for(rows * cols / width, 256), 256, 0, rows, cols, body);
}

// Calls body(c, elements) for the vectors of a row that are the thread's, `batch` of which are on their way at once, and for the single
// elements that are left over. The block's threads share the row, which the body may overwrite where it was given.
template <int width, int batch, class T, class Body>
__device__ inline void for_each_of_row(const T* row, std::int64_t cols, const Body& body) {
  const std::int64_t step = std::int64_t(blockDim.x) * width, whole = cols / width * width;
  for (std::int64_t c = std::int64_t(threadIdx.x) * width; c < whole; c += batch * step) {
    Vector<T, width> loaded[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i)
      if (c + i * step < whole) loaded[i] = load_vector<width>(row + c + i * step);
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      if (c + i * step >= whole) break;
      float elements[width];
      to_floats(loaded[i], elements);
      body(c + i * step, elements);
    }
  }
  for (std::int64_t c = whole + threadIdx.x; c < cols; c += blockDim.x) {
    float element[1] = {to_float(row[c])};
    body(c, element);
  }
}

}  // namespace mst::cuda
