// Element types, and the one place that turns a run-time dtype into a C++ type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "check.h"

namespace mst {

enum class Dtype : std::uint8_t { f32, bf16, f64, i32, u8 };

constexpr std::size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::bf16:
      return 2;
    case Dtype::f64:
      return 8;
    case Dtype::u8:
      return 1;
    default:
      return 4;
  }
}

constexpr const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "float32";
    case Dtype::bf16:
      return "bfloat16";
    case Dtype::f64:
      return "float64";
    case Dtype::i32:
      return "int32";
    case Dtype::u8:
      return "uint8";
  }
  return "?";
}

// The upper half of an f32. Arithmetic happens in f32; storing rounds to the nearest, ties to even, and keeps NaN a NaN.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  explicit bf16(float value) {
    std::uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const std::uint32_t rounded = (word + 0x7fffu + (word >> 16 & 1)) >> 16;
    bits = static_cast<std::uint16_t>(value == value ? rounded : (word >> 16 | 0x40));
  }
  operator float() const {
    const std::uint32_t word = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

// The type in which values of type T are computed: f64 for f64, f32 for all others.
template <class T>
struct compute {
  using type = float;
};
template <>
struct compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename compute<T>::type;

// The dtype of compute_t: that of log-sum-exps, per-token losses and weight gradients.
constexpr Dtype compute_dtype(Dtype dtype) {
  return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
}

template <class T>
struct type_tag {
  using type = T;
};

// For CPU ops: calls function(type_tag<T>{}) with the C++ type of a floating dtype.
template <class Function>
void with_float(const char* op, Dtype dtype, Function&& function) {
  switch (dtype) {
    case Dtype::f32:
      return function(type_tag<float>{});
    case Dtype::bf16:
      return function(type_tag<bf16>{});
    case Dtype::f64:
      return function(type_tag<double>{});
    default:
      MST_FAIL(op, ": the dtype must be float32, bfloat16 or float64, got ", name_of(dtype));
  }
}

// For CPU ops: calls function(type_tag<G>{}) with the C++ type of a weight's gradient that is summed in S. G is S, or bf16 if S is float.
template <class S, class Function>
void with_gradient(const char* op, Dtype dtype, Function&& function) {
  constexpr bool is_double = std::is_same_v<S, double>;
  if constexpr (!is_double) {
    if (dtype == Dtype::bf16) return function(type_tag<bf16>{});
  }
  MST_CHECK(dtype == (is_double ? Dtype::f64 : Dtype::f32), op, ": sums in ", is_double ? "float64" : "float32",
            " cannot be a gradient of ", name_of(dtype));
  function(type_tag<S>{});
}

}  // namespace mst
