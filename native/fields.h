// Arguments with names: a struct lists its fields, and the binder makes it from a JavaScript object.
#pragma once

#include <tuple>

namespace mst {

template <class Struct, class Value>
struct Field {
  const char* name;  // of the object's property
  using Member = Value Struct::*;
  Member member;
};

template <class T>
concept HasFields = requires {
  T::fields;
};

}  // namespace mst
