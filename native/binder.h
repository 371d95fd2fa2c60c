// Between JavaScript and the ops: arguments, their types, the device, errors. Everything is derived from the C++ signature.
//
// A JavaScript call is native.op(device, arguments...), with the number of an open device and, for each parameter,
//   Tensor           a Float64Array [address, dtype, device, row stride, shape...]
//   OptionalTensor   the same or null
//   Workspace        the same
//   OptionalLowRank  [a, b, da or null, db or null, scale, op], or null
//   double, int64_t, enum, bool   a number or a boolean
// It checks all of this on the JavaScript thread, then enqueues the op and returns.
#pragma once

#include <napi.h>

#include <cmath>
#include <map>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernel.h"
#include "ops/low_rank.h"
#include "queue.h"

namespace mst {

// What one JavaScript environment (the main thread or a worker) has open.
struct OpenDevice {
  Device device;
  std::unique_ptr<Queue> queue;
};
struct Environment {
  std::map<std::int64_t, OpenDevice> devices;
  std::int64_t next_id = 1;

  OpenDevice& find(Napi::Env env, std::int64_t id) {
    const auto found = devices.find(id);
    if (found == devices.end()) throw Napi::Error::New(env, message_of("native: device ", id, " is not open"));
    return found->second;
  }
};

struct ArgumentContext {
  Napi::Env env;
  const char* op;
  std::int64_t device_id;
  Device device;

  [[noreturn]] void fail(std::size_t index, const char* required) const {
    throw Napi::TypeError::New(env, message_of(op, ": argument ", index + 1, " must be ", required));
  }
};

inline Tensor to_tensor(const ArgumentContext& context, std::size_t index, const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) context.fail(index, "a tensor's view");
  const auto view = value.As<Napi::Float64Array>();
  constexpr std::size_t header = 4;
  if (view.ElementLength() < header || view.ElementLength() > header + Tensor::max_rank)
    context.fail(index, "a tensor's view of at most rank 4");
  if (static_cast<std::int64_t>(view[2]) != context.device_id) context.fail(index, message_of("on device ", context.device_id).c_str());
  Tensor tensor;
  tensor.data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(view[0]));
  tensor.dtype = static_cast<Dtype>(static_cast<int>(view[1]));
  tensor.device = context.device;
  tensor.row_stride = static_cast<std::int64_t>(view[3]);
  tensor.rank = static_cast<int>(view.ElementLength() - header);
  for (int i = 0; i < tensor.rank; ++i) tensor.shape[i] = static_cast<std::int64_t>(view[header + i]);
  return tensor;
}

template <class T>
T to_argument(const ArgumentContext& context, std::size_t index, const Napi::Value& value) {
  if constexpr (std::is_same_v<T, Tensor>) {
    return to_tensor(context, index, value);
  } else if constexpr (std::is_same_v<T, OptionalTensor>) {
    if (value.IsNull() || value.IsUndefined()) return std::nullopt;
    return to_tensor(context, index, value);
  } else if constexpr (std::is_same_v<T, Workspace>) {
    if (value.IsNull() || value.IsUndefined()) return {};
    const Tensor tensor = to_tensor(context, index, value);
    return {tensor.data, static_cast<std::size_t>(tensor.size()) * size_of(tensor.dtype)};
  } else if constexpr (std::is_same_v<T, OptionalLowRank>) {
    if (value.IsNull() || value.IsUndefined()) return std::nullopt;
    constexpr std::uint32_t num_fields = 6;
    const auto fields = value.IsArray() ? value.As<Napi::Array>() : Napi::Array();
    if (!value.IsArray() || fields.Length() != num_fields) context.fail(index, "an adapter");
    return LowRank{to_argument<Tensor>(context, index, fields.Get(0u)),         to_argument<Tensor>(context, index, fields.Get(1u)),
                   to_argument<OptionalTensor>(context, index, fields.Get(2u)), to_argument<OptionalTensor>(context, index, fields.Get(3u)),
                   to_argument<double>(context, index, fields.Get(4u)),         to_argument<std::int64_t>(context, index, fields.Get(5u))};
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.IsBoolean()) context.fail(index, "a boolean");
    return value.As<Napi::Boolean>().Value();
  } else if constexpr (std::is_same_v<T, double>) {
    if (!value.IsNumber()) context.fail(index, "a number");
    return value.As<Napi::Number>().DoubleValue();
  } else {
    static_assert(std::is_same_v<T, std::int64_t> || std::is_enum_v<T>, "no conversion for this parameter type");
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
    if (number != std::floor(number)) context.fail(index, "an integer");
    return static_cast<T>(static_cast<std::int64_t>(number));
  }
}

inline void describe(std::ostream&) {}
template <class First, class... Rest>
void describe(std::ostream& out, const First& first, const Rest&... rest) {
  if constexpr (std::is_same_v<First, Tensor>) out << ' ' << first;
  if constexpr (std::is_same_v<First, OptionalTensor>)
    if (first) out << ' ' << *first;
  describe(out, rest...);
}

// Runs the op on the command thread; an error is given the op's name and its tensors' shapes.
template <class Op, class... Arguments>
void run_op(const char* name, const Op& op, const Arguments&... arguments) {
  try {
    op(arguments...);
  } catch (const std::exception& error) {
    std::ostringstream text;
    text << error.what() << " (in " << name << " of";
    describe(text, arguments...);
    text << ')';
    throw Error(text.str());
  }
}

template <class Op, class... Parameters>
Napi::Function bind_signature(Napi::Env env, const char* name, const Op& op, std::type_identity<void(Parameters...)>) {
  return Napi::Function::New(
      env,
      [name, op](const Napi::CallbackInfo& info) {
        const Napi::Env env = info.Env();
        if (info.Length() != sizeof...(Parameters) + 1)
          throw Napi::TypeError::New(env, message_of(name, ": takes ", sizeof...(Parameters), " arguments, got ", int(info.Length()) - 1));
        if (!info[0].IsNumber()) throw Napi::TypeError::New(env, message_of(name, ": the device must be a number"));
        const std::int64_t id = info[0].As<Napi::Number>().Int64Value();
        OpenDevice& open = env.GetInstanceData<Environment>()->find(env, id);
        const ArgumentContext context{env, name, id, open.device};
        auto arguments = [&]<std::size_t... i>(std::index_sequence<i...>) {
          return std::tuple<std::decay_t<Parameters>...>{to_argument<std::decay_t<Parameters>>(context, i, info[i + 1])...};
        }
        (std::index_sequence_for<Parameters...>{});
        open.queue->push([name, op, arguments = std::move(arguments)](DeviceContext&) {
          std::apply([&](const auto&... each) { run_op(name, op, each...); }, arguments);
        });
      },
      name);
}

template <class... Parameters>
Napi::Function bind(Napi::Env env, const char* name, void (*op)(Parameters...)) {
  return bind_signature(env, name, op, std::type_identity<void(Parameters...)>{});
}

template <class... Parameters, void (*on_cpu)(const Tensor&, Parameters...), void (*on_cuda)(const Tensor&, Parameters...)>
Napi::Function bind(Napi::Env env, const char* name, const Kernel<on_cpu, on_cuda>& op) {
  return bind_signature(env, name, op, std::type_identity<void(const Tensor&, Parameters...)>{});
}

}  // namespace mst
