// Arguments with names: a struct lists its fields, and the binder makes it from a JavaScript object.
#pragma once

#include <concepts>
#include <optional>
#include <tuple>
#include <type_traits>

#include "tensor.h"

namespace mst {

template <class Struct, class Value>
struct Field {
  const char* name;  // of the object's property
  using Member = Value Struct::*;
  Member member;
  char access = 0;  // what an op does with the field's tensors, as a letter of addon.cpp, where the struct says this itself
  using Type = Value;
};

template <class T>
concept HasFields = requires {
  T::fields;
};

// Where what an op does with a struct's tensors depends on its other fields.
template <class T>
concept HasAccess = requires(const T& value) {
  { value.access() } -> std::same_as<char>;
};

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

// Whether an argument of this type is, or has, a tensor.
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
