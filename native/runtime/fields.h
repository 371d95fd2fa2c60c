// Named arguments: a struct lists its fields, and the binder fills it from a JavaScript object.
#pragma once

#include <concepts>
#include <optional>
#include <tuple>
#include <type_traits>

#include "tensor.h"

namespace mst {

template <class Struct, class Value>
struct Field {
  const char* name;  // name of the object's property
  using Member = Value Struct::*;
  Member member;
  char access = 0;  // letter of the field's tensors (letters_of in binder.h); 0: see access(), or the op's row in addon.cpp
  using Type = Value;
};

template <class T>
concept HasFields = requires {
  T::fields;
};

// A struct whose other fields decide what an op does with its tensors: access() returns the letter.
template <class T>
concept HasAccess = requires(const T& value) {
  { value.access() } -> std::same_as<char>;
};

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

// Whether an argument of this type is or contains a tensor.
template <class T>
constexpr bool holds_tensors() {
  if constexpr (is_optional<T>)
    return holds_tensors<typename T::value_type>();
  else if constexpr (HasFields<T>)
    return std::apply([](const auto&... fields) { return (holds_tensors<typename std::decay_t<decltype(fields)>::Type>() || ...); },
                      T::fields);
  else
    return std::is_same_v<T, Tensor>;
}

}  // namespace mst
