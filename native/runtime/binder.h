// Makes JavaScript functions of ops: they convert arguments, check types and devices, and turn exceptions into errors. Everything is
// derived from the C++ signature.
//
// JavaScript calls native.op(device, arguments...). `device` is the number of an open device, whose context the op gets. Each parameter
// after the context takes one argument, by its C++ type:
//   Tensor               a Float64Array [address, dtype, device, row stride, shape..., -owner]; the owner may be left out (see failures.h)
//   Workspace            the same, or null
//   a struct with fields an object with one property per field
//   std::optional        the value, or null
//   double, int64_t, enum, bool   a number or a boolean
// The call checks all arguments on the JavaScript thread, also that tensors belong to this device and lie in its memory. Then it enqueues
// the op and returns.
#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../ops/glu.h"
#include "environment.h"
#include "fields.h"
#include "kernel.h"

namespace mst {

// The number of values of an enum; JavaScript passes a number from 0 to num_values - 1.
template <class E>
inline constexpr std::int64_t num_values = 0;
template <>
inline constexpr std::int64_t num_values<Activation> = 2;
template <>
inline constexpr std::int64_t num_values<Dtype> = 5;

// What an op does with its tensors: one letter, in order, for each parameter that is or contains a tensor,
//   r  reads   w  assigns   u  reads and overwrites, or adds to   s  workspace   f  as the struct's fields say
// or a function of the arguments that returns the letters.
template <class Arguments>
std::string letters_of(const char* letters, const Arguments&) {
  return letters;
}
template <class Function, class Arguments>
std::string letters_of(const Function& function, const Arguments& arguments) {
  return std::apply(function, arguments);
}

// The path of a field inside an argument, for messages: `.gate.b`.
struct FieldPath {
  const FieldPath* outer;
  const char* name;

  friend std::ostream& operator<<(std::ostream& out, const FieldPath& path) {
    if (path.outer) out << *path.outer;
    return out << '.' << path.name;
  }
};

struct ArgumentContext {
  const char* op;
  std::int64_t device_id;
  const OpenDevice& open;
  const FieldPath* path = nullptr;

  [[noreturn]] void fail(std::size_t index, const std::string& required) const {
    throw ArgumentError(message_of(op, ": argument ", index + 1, path ? message_of(*path) : "", " must be ", required));
  }
};

// A tensor and the owner of its memory; see failures.h.
struct Owned {
  Tensor tensor;
  std::uint64_t owner = 0;
  std::size_t bytes = 0;  // from its first element to its last

  // A write to some columns leaves what lies between them as it is, so that it does not make all of these bytes good.
  Access access(Access::Kind kind) const {
    if (kind == Access::write && !tensor.is_contiguous()) kind = Access::update;
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
    return {kind, begin, begin + bytes, owner};
  }
};

inline Owned to_tensor(const ArgumentContext& context, std::size_t index, const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) context.fail(index, "a tensor's view");
  const auto view = value.As<Napi::Float64Array>();
  constexpr std::size_t header = 4;
  std::size_t end = view.ElementLength();
  Owned owned;
  if (end > header && is_integer(view[end - 1], -max_safe_integer, -1)) owned.owner = static_cast<std::uint64_t>(-view[--end]);
  if (end < header || end > header + Tensor::max_rank) context.fail(index, "a tensor's view of at most rank 4");
  if (view[2] != static_cast<double>(context.device_id)) context.fail(index, message_of("a tensor on device ", context.device_id));
  if (!is_integer(view[0], 0, max_safe_integer)) context.fail(index, message_of("a tensor with an integer address, got ", view[0]));
  if (!is_integer(view[1], 0, num_values<Dtype> - 1)) context.fail(index, message_of("a tensor of a known dtype, got number ", view[1]));
  for (std::size_t i = 3; i < end; ++i)
    if (!is_integer(view[i], 0, max_safe_integer))
      context.fail(index, message_of("a tensor of integer lengths, got ", i == 3 ? "row stride " : "length ", view[i]));

  Tensor& tensor = owned.tensor;
  tensor.data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(view[0]));
  tensor.dtype = static_cast<Dtype>(view[1]);
  tensor.row_stride = static_cast<std::int64_t>(view[3]);
  tensor.rank = static_cast<int>(end - header);
  std::int64_t rows = 1, elements = 0;  // elements: from the first to the last, gaps included
  bool overflows = false;
  for (int i = 0; i < tensor.rank; ++i) {
    tensor.shape[i] = static_cast<std::int64_t>(view[header + i]);
    if (i + 1 < tensor.rank) overflows |= __builtin_mul_overflow(rows, tensor.shape[i], &rows);
  }
  const std::int64_t cols = tensor.cols();
  if (tensor.row_stride < cols)
    context.fail(index, message_of("a tensor whose rows do not overlap, got row stride ", view[3], " for rows of ", cols));
  if (!overflows && rows > 0 && cols > 0) {
    overflows |= __builtin_mul_overflow(rows - 1, tensor.row_stride, &elements);
    overflows |= __builtin_add_overflow(elements, cols, &elements);
  }
  overflows |= elements > max_safe_integer / static_cast<std::int64_t>(size_of(tensor.dtype));
  if (overflows) context.fail(index, "a tensor of fewer elements");
  owned.bytes = static_cast<std::size_t>(elements) * size_of(tensor.dtype);
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (begin % size_of(tensor.dtype) != 0)
    context.fail(index, message_of("a tensor at a multiple of its element size, got address ", begin));
  if (!context.open.mapped.contain(begin, begin + owned.bytes))
    context.fail(index, message_of("a tensor in the device's memory, got ", owned.bytes, " bytes at ", begin));
  return owned;
}

// Converts the arguments of one call and records which device memory they refer to.
class Arguments {
 public:
  Arguments(ArgumentContext context, const Napi::CallbackInfo& info) : context_(context), info_(info) {
    tensors_.reserve(info.Length());
  }

  template <class T>
  T convert(std::size_t index) {
    T result = convert<T>(index, info_[index + 1]);
    if constexpr (holds_tensors<T>()) ++num_letters_;
    return result;
  }

  // What the op does with the memory of each tensor, by its letters. Workspaces are left out.
  Accesses accesses(const std::string& letters) const {
    MST_CHECK(letters.size() == num_letters_, context_.op, ": ", letters.size(), " letters for ", num_letters_, " arguments with tensors");
    Accesses accesses;
    accesses.reserve(tensors_.size());
    for (const Given& given : tensors_) {
      const char letter = letters[given.place] == 'f' ? given.access : letters[given.place];
      MST_CHECK(letter, context_.op, ": no letter for a field of struct ", given.place + 1);
      if (letter == 's') continue;
      accesses.push_back(given.owned.access(letter == 'r' ? Access::read : letter == 'w' ? Access::write : Access::update));
    }
    return accesses;
  }

 private:
  template <class T>
  T convert(std::size_t index, const Napi::Value& value) {
    if constexpr (is_optional<T>) {
      if (value.IsNull() || value.IsUndefined()) return std::nullopt;
      return convert<typename T::value_type>(index, value);
    } else if constexpr (std::is_same_v<T, Tensor>) {
      tensors_.push_back({num_letters_, 0, to_tensor(context_, index, value)});
      return tensors_.back().owned.tensor;
    } else if constexpr (std::is_same_v<T, Workspace>) {
      if (value.IsNull() || value.IsUndefined()) return {};
      const Owned owned = to_tensor(context_, index, value);
      return {owned.tensor.data, owned.bytes};
    } else if constexpr (HasFields<T>) {
      if (!value.IsObject()) context_.fail(index, "an object");
      return to_struct<T>(index, value.As<Napi::Object>());
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!value.IsBoolean()) context_.fail(index, "a boolean");
      return value.As<Napi::Boolean>().Value();
    } else {
      const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
      if constexpr (std::is_same_v<T, double>) {
        if (!value.IsNumber()) context_.fail(index, "a number");
        return number;
      } else if constexpr (std::is_enum_v<T>) {
        static_assert(num_values<T> > 0, "num_values is missing for this enum");
        if (!is_integer(number, 0, num_values<T> - 1)) context_.fail(index, message_of("an integer from 0 to ", num_values<T> - 1));
        return static_cast<T>(number);
      } else {
        static_assert(std::is_same_v<T, std::int64_t>, "no conversion for this parameter type");
        if (!is_integer(number, -max_safe_integer, max_safe_integer)) context_.fail(index, "an integer");
        return static_cast<std::int64_t>(number);
      }
    }
  }

  template <class Struct>
  Struct to_struct(std::size_t index, const Napi::Object& object) {
    Struct result{};
    const std::size_t first = tensors_.size();
    const auto read = [&]<class Value>(const Field<Struct, Value>& field) {
      const FieldPath path{context_.path, field.name};
      const std::size_t first_of_field = tensors_.size();
      context_.path = &path;
      result.*field.member = convert<Value>(index, object.Get(field.name));
      context_.path = path.outer;
      set_access(first_of_field, field.access);
    };
    std::apply([&](const auto&... fields) { (read(fields), ...); }, Struct::fields);
    if constexpr (HasAccess<Struct>) set_access(first, result.access());
    return result;
  }

  // Sets the letter of the tensors from `first` on that have none yet.
  void set_access(std::size_t first, char access) {
    for (std::size_t i = first; i < tensors_.size(); ++i)
      if (!tensors_[i].access) tensors_[i].access = access;
  }

  struct Given {
    std::size_t place;  // index of the argument's letter
    char access;        // letter by the struct's fields; 0: none
    Owned owned;
  };

  ArgumentContext context_;
  const Napi::CallbackInfo& info_;
  std::size_t num_letters_ = 0;
  std::vector<Given> tensors_;
};

// The shapes of an argument's tensors.
template <class T>
void describe(std::ostream& out, const T& argument) {
  if constexpr (std::is_same_v<T, Tensor>) out << ' ' << argument;
  if constexpr (is_optional<T>)
    if (argument) describe(out, *argument);
  if constexpr (HasFields<T>) std::apply([&](const auto&... fields) { (describe(out, argument.*fields.member), ...); }, T::fields);
}

// Runs the op, on the command thread. Adds the op's name and the shapes of its tensors to an error.
template <class Op, class... Arguments>
void run_op(const char* name, const Op& op, Context& context, const Arguments&... arguments) {
  try {
    op(context, arguments...);
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << error.what() << " (in " << name << " of";
    (describe(text, arguments), ...);
    text << ')';
    throw Error(text.str());
  }
}

template <class Op, class Letters, class... Parameters>
Napi::Function bind_signature(Napi::Env env, const char* name, const Op& op, const Letters& letters,
                              std::type_identity<void(Parameters...)>) {
  const auto call = [name, op, letters](const Napi::CallbackInfo& info) {
    if (info.Length() != sizeof...(Parameters) + 1)
      throw ArgumentError(message_of(name, ": takes ", sizeof...(Parameters), " arguments, got ", int(info.Length()) - 1));
    if (!info[0].IsNumber()) throw ArgumentError(message_of(name, ": the device must be a number"));
    const double id = info[0].As<Napi::Number>().DoubleValue();
    const std::shared_ptr<OpenDevice> open = environment_of(info).find(id);
    const ArgumentContext context{name, static_cast<std::int64_t>(id), *open};
    Arguments converter(context, info);
    auto convert = [&]<std::size_t... i>(std::index_sequence<i...>) {
      return std::tuple<std::decay_t<Parameters>...>{converter.convert<std::decay_t<Parameters>>(i)...};  // braces evaluate in order
    };
    auto arguments = convert(std::index_sequence_for<Parameters...>{});
    Accesses accesses = converter.accesses(letters_of(letters, arguments));
    open->queue.push([name, op, arguments = std::move(arguments)](
                         Context& context) { std::apply([&](const auto&... each) { run_op(name, op, context, each...); }, arguments); },
                     std::move(accesses));
  };
  return Napi::Function::New(
      env, [call](const Napi::CallbackInfo& info) { return guarded(info.Env(), [&] { call(info); }); }, name);
}

template <class Letters, class... Parameters>
Napi::Function bind(Napi::Env env, const char* name, void (*op)(Context&, Parameters...), const Letters& letters) {
  return bind_signature(env, name, op, letters, std::type_identity<void(Parameters...)>{});
}

template <class Letters, class... Parameters, void (*on_cpu)(cpu::Context&, Parameters...), void (*on_cuda)(cuda::Context&, Parameters...)>
Napi::Function bind(Napi::Env env, const char* name, const Kernel<on_cpu, on_cuda>& op, const Letters& letters) {
  return bind_signature(env, name, op, letters, std::type_identity<void(Parameters...)>{});
}

}  // namespace mst
