// Between JavaScript and the ops: arguments, their types, the device, errors. Everything is derived from the C++ signature.
//
// A JavaScript call is native.op(device, arguments...), with the number of an open device, whose context the op gets, and, for each
// parameter after it,
//   Tensor           a Float64Array [address, dtype, device, row stride, shape..., -owner]; the owner may be left out (see failures.h)
//   OptionalTensor   the same or null
//   Workspace        the same
//   OptionalLowRank  [a, b, da or null, db or null, scale, op], or null
//   a struct with fields   an object with a property for each of them; its tensors have their letters in the order of the fields
//   double, int64_t, enum, bool   a number or a boolean
// It checks all of this on the JavaScript thread, also that tensors are of this device and lie in its memory, then enqueues the op and
// returns.
#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "environment.h"
#include "fields.h"
#include "kernel.h"
#include "ops/glu.h"
#include "ops/low_rank.h"

namespace mst {

// Of an enum that JavaScript passes as a number: 0 to num_values - 1.
template <class E>
inline constexpr std::int64_t num_values = 0;
template <>
inline constexpr std::int64_t num_values<Activation> = 2;
template <>
inline constexpr std::int64_t num_values<Dtype> = 5;

// What an op does with its tensors, a letter for each that is given, in the order of its parameters without workspaces and adapters:
//   r  reads   w  assigns   u  reads and overwrites, or adds to   s  workspace
// or a function of the arguments that returns the letters.
inline std::string letters_of(const char* letters, const auto&) {
  return letters;
}
inline std::string letters_of(const auto& function, const auto& arguments) {
  return function(arguments);
}

struct ArgumentContext {
  const char* op;
  std::int64_t device_id;
  const OpenDevice& open;
  const char* field = nullptr;  // of the argument, where it has names

  [[noreturn]] void fail(std::size_t index, const std::string& required) const {
    throw ArgumentError(message_of(op, ": argument ", index + 1, field ? "." : "", field ? field : "", " must be ", required));
  }
};

// A tensor with its owner.
struct Owned {
  Tensor tensor;
  std::uint64_t owner = 0;
  std::size_t bytes = 0;  // from its first element to its last

  Access access(Access::Kind kind) const {
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
  if (view[2] != static_cast<double>(context.device_id)) context.fail(index, message_of("on device ", context.device_id));
  if (!is_integer(view[0], 0, max_safe_integer)) context.fail(index, message_of("at an address, got ", view[0]));
  if (!is_integer(view[1], 0, num_values<Dtype> - 1)) context.fail(index, message_of("of a dtype, got ", view[1]));
  for (std::size_t i = 3; i < end; ++i)
    if (!is_integer(view[i], 0, max_safe_integer))
      context.fail(index, message_of("of whole lengths, got ", i == 3 ? "row stride " : "length ", view[i]));

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
  if (tensor.row_stride < cols) context.fail(index, message_of("of rows that do not overlap, got row stride ", view[3], " for ", cols));
  if (!overflows && rows > 0 && cols > 0) {
    overflows |= __builtin_mul_overflow(rows - 1, tensor.row_stride, &elements);
    overflows |= __builtin_add_overflow(elements, cols, &elements);
  }
  overflows |= elements > max_safe_integer / static_cast<std::int64_t>(size_of(tensor.dtype));
  if (overflows) context.fail(index, "of fewer elements");
  owned.bytes = static_cast<std::size_t>(elements) * size_of(tensor.dtype);
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (begin % size_of(tensor.dtype) != 0) context.fail(index, message_of("at whole elements, got address ", begin));
  if (!context.open.mapped.contain(begin, begin + owned.bytes))
    context.fail(index, message_of("in the device's memory, got ", owned.bytes, " bytes at ", begin));
  return owned;
}

// Converts the arguments of one call, and notes what they are of device memory.
class Arguments {
 public:
  Arguments(ArgumentContext context, const Napi::CallbackInfo& info) : context_(context), info_(info) {
    tensors_.reserve(info.Length());
  }

  template <class T>
  T convert(std::size_t index) {
    return convert<T>(index, info_[index + 1]);
  }

  // What the op does with each tensor that it was given.
  Accesses accesses(const std::string& letters) const {
    MST_CHECK(letters.size() == num_tensors_, context_.op, ": ", letters.size(), " letters for ", num_tensors_, " tensors");
    Accesses accesses;
    accesses.reserve(tensors_.size() + adapters_.size());
    accesses.insert(accesses.end(), adapters_.begin(), adapters_.end());
    for (const auto& [place, owned] : tensors_) {
      const char letter = letters[place];
      if (letter == 's') continue;
      accesses.push_back(owned.access(letter == 'r' ? Access::read : letter == 'w' ? Access::write : Access::update));
    }
    return accesses;
  }

 private:
  template <class T>
  T convert(std::size_t index, const Napi::Value& value) {
    const bool is_absent = value.IsNull() || value.IsUndefined();
    if constexpr (std::is_same_v<T, Tensor>) {
      tensors_.emplace_back(num_tensors_++, to_tensor(context_, index, value));
      return tensors_.back().second.tensor;
    } else if constexpr (std::is_same_v<T, OptionalTensor>) {
      if (!is_absent) return convert<Tensor>(index, value);
      ++num_tensors_;
      return std::nullopt;
    } else if constexpr (std::is_same_v<T, Workspace>) {
      if (is_absent) return {};
      const Owned owned = to_tensor(context_, index, value);
      return {owned.tensor.data, owned.bytes};
    } else if constexpr (std::is_same_v<T, OptionalLowRank>) {
      if (is_absent) return std::nullopt;
      constexpr std::uint32_t num_fields = 6;
      const auto fields = value.IsArray() ? value.As<Napi::Array>() : Napi::Array();
      if (!value.IsArray() || fields.Length() != num_fields) context_.fail(index, "an adapter");
      return LowRank{adapter_tensor(index, fields.Get(0u), Access::read).value(),
                     adapter_tensor(index, fields.Get(1u), Access::read).value(),
                     adapter_tensor(index, fields.Get(2u), Access::update),
                     adapter_tensor(index, fields.Get(3u), Access::update),
                     convert<double>(index, fields.Get(4u)),
                     convert<std::int64_t>(index, fields.Get(5u))};
    } else if constexpr (HasFields<T>) {
      if (!value.IsObject()) context_.fail(index, "an object");
      const auto object = value.As<Napi::Object>();
      T result{};
      const auto read = [&]<class Value>(const Field<T, Value>& field) {
        context_.field = field.name;
        result.*field.member = convert<Value>(index, object.Get(field.name));
        context_.field = nullptr;
      };
      std::apply([&](const auto&... fields) { (read(fields), ...); }, T::fields);
      return result;
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!value.IsBoolean()) context_.fail(index, "a boolean");
      return value.As<Napi::Boolean>().Value();
    } else {
      const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
      if constexpr (std::is_same_v<T, double>) {
        if (!value.IsNumber()) context_.fail(index, "a number");
        return number;
      } else if constexpr (std::is_enum_v<T>) {
        static_assert(num_values<T> > 0, "how many values has this enum?");
        if (!is_integer(number, 0, num_values<T> - 1)) context_.fail(index, message_of("an integer from 0 to ", num_values<T> - 1));
        return static_cast<T>(number);
      } else {
        static_assert(std::is_same_v<T, std::int64_t>, "no conversion for this parameter type");
        if (!is_integer(number, -max_safe_integer, max_safe_integer)) context_.fail(index, "an integer");
        return static_cast<std::int64_t>(number);
      }
    }
  }

  OptionalTensor adapter_tensor(std::size_t index, const Napi::Value& value, Access::Kind kind) {
    if (kind == Access::update && (value.IsNull() || value.IsUndefined())) return std::nullopt;
    const Owned owned = to_tensor(context_, index, value);
    adapters_.push_back(owned.access(kind));
    return owned.tensor;
  }

  ArgumentContext context_;
  const Napi::CallbackInfo& info_;
  std::size_t num_tensors_ = 0;                         // absent ones included
  std::vector<std::pair<std::size_t, Owned>> tensors_;  // with their places among all
  Accesses adapters_;
};

inline void describe(std::ostream&) {}
template <class First, class... Rest>
void describe(std::ostream& out, const First& first, const Rest&... rest) {
  if constexpr (std::is_same_v<First, Tensor>) out << ' ' << first;
  if constexpr (std::is_same_v<First, OptionalTensor>)
    if (first) out << ' ' << *first;
  if constexpr (HasFields<First>) std::apply([&](const auto&... fields) { (describe(out, first.*fields.member), ...); }, First::fields);
  describe(out, rest...);
}

// Runs the op on the command thread; an error is given the op's name and its tensors' shapes.
template <class Op, class... Arguments>
void run_op(const char* name, const Op& op, Context& context, const Arguments&... arguments) {
  try {
    op(context, arguments...);
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << error.what() << " (in " << name << " of";
    describe(text, arguments...);
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
      return std::tuple<std::decay_t<Parameters>...>{converter.convert<std::decay_t<Parameters>>(i)...};  // in order: braces
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
