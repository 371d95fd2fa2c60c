// Loads and stores of elements in vectors of 16 bytes (4 f32 or 8 bf16) if alignment and length allow it, otherwise one by one.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "launch.h"

namespace mst::cuda {

template <class T>
constexpr int vector_width = static_cast<int>(16 / sizeof(T));

// Whether every row begins at a multiple of 16 bytes.
inline bool has_aligned_rows(const Tensor& tensor) {
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % 16 != 0) return false;
  return tensor.rows() <= 1 || tensor.row_stride * static_cast<std::int64_t>(size_of(tensor.dtype)) % 16 == 0;
}

// Whether every row of these tensors begins at a multiple of 16 bytes and is a whole number of vectors long.
inline bool is_vectorizable(std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors)
    if (!has_aligned_rows(*tensor) || tensor->cols() * static_cast<std::int64_t>(size_of(tensor->dtype)) % 16 != 0) return false;
  return true;
}

// Calls function(std::integral_constant<int, width>) if rows are read in vectors, otherwise with 1.
template <int width, class Function>
void with_width(bool in_vectors, const Function& function) {
  if (in_vectors)
    function(std::integral_constant<int, width>{});
  else
    function(std::integral_constant<int, 1>{});
}

// The rows of a tensor, as a kernel's argument.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  __device__ T* at(std::int64_t n, std::int64_t c) const {
    return data + n * stride + c;
  }
};

template <class T>
Rows<T> rows_of(const Tensor& tensor) {
  return {tensor.as<T>(), tensor.row_stride};
}

// A vector in registers; elements of 2 bytes are packed two to a word.
template <class T, int width>
struct Vector {
  static constexpr int bytes = static_cast<int>(sizeof(T)) * width;
  using Word = std::conditional_t<bytes % 4 == 0, std::uint32_t, std::uint16_t>;
  static constexpr int num_words = bytes / static_cast<int>(sizeof(Word));
  Word words[num_words];

  __device__ float at(int i) const {
    if constexpr (sizeof(T) == sizeof(float))
      return __uint_as_float(words[i]);
    else if constexpr (sizeof(Word) == sizeof(T))
      return __uint_as_float(std::uint32_t{words[i]} << 16);
    else
      return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
  }
};

// The largest element.
template <class T, int width>
__device__ inline float largest_of(const Vector<T, width>& vector) {
  if constexpr (sizeof(T) == sizeof(float) || width == 1) {
    float largest = vector.at(0);
#pragma unroll
    for (int i = 1; i < width; ++i) largest = fmaxf(largest, vector.at(i));
    return largest;
  } else {
    Vector<T, 2> largest = {vector.words[0]};
#pragma unroll
    for (int i = 1; i < vector.num_words; ++i) largest.words[0] = packed_maximum(largest.words[0], vector.words[i]);
    return fmaxf(largest.at(0), largest.at(1));
  }
}

// Hides the value from the compiler, so that it recomputes what it derived from the elements instead of holding that in registers.
template <int width, class T>
__device__ inline Vector<T, width> as_new(Vector<T, width> vector) {
#ifdef __CUDACC__
#pragma unroll
  for (auto& word : vector.words) asm volatile("" : "+r"(word));
#endif
  return vector;
}

template <int width, class T>
__device__ inline Vector<T, width> load_vector(const T* from) {
  using V = Vector<T, width>;
  V vector;
  if constexpr (V::bytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < V::num_words; i += 4) {
      const uint4 four = reinterpret_cast<const uint4*>(from)[i / 4];
      vector.words[i] = four.x, vector.words[i + 1] = four.y, vector.words[i + 2] = four.z, vector.words[i + 3] = four.w;
    }
  } else if constexpr (V::bytes == 8) {
    const uint2 two = *reinterpret_cast<const uint2*>(from);
    vector.words[0] = two.x, vector.words[1] = two.y;
  } else {
    static_assert(V::num_words == 1);
    vector.words[0] = *reinterpret_cast<const typename V::Word*>(from);
  }
  return vector;
}

// Stores 16 bytes in one instruction; the compiler may split an assignment into one store per word.
template <int width, class T>
__device__ inline void store_vector(const Vector<T, width>& vector, T* to) {
  using V = Vector<T, width>;
  if constexpr (V::bytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < V::num_words; i += 4)
      __stwb(reinterpret_cast<uint4*>(to) + i / 4, uint4{vector.words[i], vector.words[i + 1], vector.words[i + 2], vector.words[i + 3]});
  } else if constexpr (V::bytes == 8) {
    __stwb(reinterpret_cast<uint2*>(to), uint2{vector.words[0], vector.words[1]});
  } else {
    *reinterpret_cast<typename V::Word*>(to) = vector.words[0];
  }
}

template <int width, class T>
__device__ inline void to_floats(const Vector<T, width>& vector, float (&to)[width]) {
#pragma unroll
  for (int i = 0; i < width; ++i) to[i] = vector.at(i);
}

template <int width, class T>
__device__ inline void load(const T* from, float (&to)[width]) {
  to_floats(load_vector<width>(from), to);
}

template <int width, class T>
__device__ inline void store(const float (&from)[width], T* to) {
  Vector<T, width> vector;
#pragma unroll
  for (int i = 0; i < vector.num_words; ++i) {
    if constexpr (sizeof(T) == sizeof(float))
      vector.words[i] = __float_as_uint(from[i]);
    else if constexpr (width == 1)
      vector.words[i] = static_cast<std::uint16_t>(pack(from[i], 0));
    else
      vector.words[i] = pack(from[2 * i], from[2 * i + 1]);
  }
  store_vector(vector, to);
}

// Calls body(n, c) for every vector of every row n, where c is the vector's first column. The threads of the grid share the vectors.
template <int width, class Body>
__global__ void for_each_vector_kernel(std::int64_t rows, std::int64_t cols, Body body) {
  const std::int64_t per_row = cols / width, row_step = grid_threads() / per_row, step = grid_threads() % per_row;
  std::int64_t n = grid_thread() / per_row, i = grid_thread() % per_row;  // division is slow: done once
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
void for_each_vector(Context& context, std::int64_t rows, std::int64_t cols, const Body& body) {
  if (rows == 0 || cols == 0) return;
  launch(context, for_each_vector_kernel<width, Body>, grid_for(rows * cols / width, 256), 256, 0, rows, cols, body);
}

// Calls body(c, vector) for the thread's vectors of a row, and for single elements that are left over. `batch` vectors are loaded at once.
// The threads of the block share the row. The body may overwrite the columns that it gets.
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
      body(c + i * step, loaded[i]);
    }
  }
  for (std::int64_t c = whole + threadIdx.x; c < cols; c += blockDim.x) body(c, load_vector<1>(row + c));
}

}  // namespace mst::cuda
