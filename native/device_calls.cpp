// See device_calls.h.
#include "device_calls.h"

#include <cstring>

#include "binder.h"

namespace mst {
namespace {

std::string text(const Napi::CallbackInfo& info, std::size_t index) {
  return info[index].As<Napi::String>().Utf8Value();
}

std::int64_t integer(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsNumber()) throw Napi::TypeError::New(info.Env(), message_of("native: argument ", index + 1, " must be a number"));
  return info[index].As<Napi::Number>().Int64Value();
}

char* address(const Napi::CallbackInfo& info, std::size_t index) {
  return reinterpret_cast<char*>(integer(info, index));
}

Napi::Uint8Array bytes_of(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsTypedArray() || info[index].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw Napi::TypeError::New(info.Env(), message_of("native: argument ", index + 1, " must be a Uint8Array"));
  return info[index].As<Napi::Uint8Array>();
}

OpenDevice& device_of(const Napi::CallbackInfo& info) {
  return info.Env().GetInstanceData<Environment>()->find(info.Env(), integer(info, 0));
}

// An error with a code that JavaScript can ask for.
Napi::Error coded(Napi::Env env, const std::string& message, const char* code) {
  auto error = Napi::Error::New(env, message);
  error.Set("code", code);
  return error;
}

constexpr const char* device_lost = "DEVICE_LOST";

// C++ errors cross over as JavaScript errors; OutOfMemory carries a code that TypeScript turns into its OutOfMemoryError.
template <class Function>
auto translated(Napi::Env env, const Function& function) {
  try {
    return function();
  } catch (const OutOfMemory& error) {
    throw coded(env, error.what(), "OUT_OF_MEMORY");
  } catch (const DeviceLost& error) {
    throw coded(env, error.what(), device_lost);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

// A promise that the command thread fulfils. While it is pending the event loop stays alive, and `kept` with its memory.
// What JavaScript owns is released on its thread: the call that settles the promise deletes this.
struct Pending {
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference kept;
  Napi::ThreadSafeFunction to_javascript;
  std::string error;  // empty: fulfilled
  bool is_lost = false;
};

void settle(Napi::Env env, Napi::Function, Pending* settled) {
  const std::unique_ptr<Pending> pending(settled);
  if (env == nullptr) return;  // the environment is closing
  if (pending->error.empty())
    pending->deferred.Resolve(env.Undefined());
  else
    pending->deferred.Reject((pending->is_lost ? coded(env, pending->error, device_lost) : Napi::Error::New(env, pending->error)).Value());
}

Napi::Value fenced(const Napi::CallbackInfo& info, Queue::Command command, const Napi::Object& kept) {
  const Napi::Env env = info.Env();
  const auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  Queue& queue = *device_of(info).queue;
  auto* pending = new Pending{Napi::Promise::Deferred::New(env),
                              Napi::Persistent(kept),
                              Napi::ThreadSafeFunction::New(env, nothing, "minisequence", 0, 1),
                              {},
                              false};
  queue.fence(std::move(command), [pending](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& thrown) {
      pending->error = thrown.what();
      pending->is_lost = dynamic_cast<const DeviceLost*>(&thrown) != nullptr;
    }
    Napi::ThreadSafeFunction to_javascript = pending->to_javascript;
    to_javascript.NonBlockingCall(pending, settle);
    to_javascript.Release();
  });
  return pending->deferred.Promise();
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    const std::string kind = text(info, 0);
    const int index = static_cast<int>(integer(info, 1));
    const Device device{kind == "cuda" ? Device::cuda : Device::cpu, index};
    auto context = device.kind == Device::cuda ? open_cuda(index, {text(info, 3), text(info, 4), text(info, 5)})
                                               : open_cpu(static_cast<int>(integer(info, 2)));
    const auto granularity = static_cast<double>(context->granularity());
    const std::string own_products_reason = context->own_products_reason();
    const char* const attention = context->uses_cudnn_attention() ? "cudnn" : "own";
    Environment& environment = *env.GetInstanceData<Environment>();
    const std::int64_t id = environment.next_id++;
    environment.devices[id] = {device, std::make_unique<Queue>(std::move(context))};
    auto result = Napi::Object::New(env);
    result.Set("id", static_cast<double>(id));
    result.Set("granularity", granularity);
    result.Set("attention", attention);
    result.Set("ownProductsReason", own_products_reason);
    return result;
  });
}

void close_device(const Napi::CallbackInfo& info) {
  info.Env().GetInstanceData<Environment>()->devices.erase(integer(info, 0));
}

Napi::Value reserve(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&]() -> Napi::Value {
    const auto bytes = static_cast<std::size_t>(integer(info, 1));
    char* const base = device_of(info).queue->call([bytes](DeviceContext& context) { return context.reserve(bytes); });
    return Napi::Number::New(info.Env(), static_cast<double>(reinterpret_cast<std::uintptr_t>(base)));
  });
}

void map(const Napi::CallbackInfo& info) {
  translated(info.Env(), [&] {
    device_of(info).queue->call(
        [at = address(info, 1), bytes = static_cast<std::size_t>(integer(info, 2))](DeviceContext& context) { context.map(at, bytes); });
  });
}

void unmap(const Napi::CallbackInfo& info) {
  // In queue order, so that no command still uses the pages.
  device_of(info).queue->push([at = address(info, 1), bytes = static_cast<std::size_t>(integer(info, 2))](DeviceContext& context) {
    context.synchronize();
    context.unmap(at, bytes);
  });
}

Napi::Value available_bytes(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&]() -> Napi::Value {
    const std::size_t bytes = device_of(info).queue->call([](DeviceContext& context) { return context.available_bytes(); });
    return Napi::Number::New(info.Env(), static_cast<double>(bytes));
  });
}

void write(const Napi::CallbackInfo& info) {
  const Napi::Uint8Array from = bytes_of(info, 2);
  std::shared_ptr<char[]> staged(new char[from.ByteLength()]);
  std::memcpy(staged.get(), from.Data(), from.ByteLength());
  device_of(info).queue->push(
      [to = address(info, 1), staged, bytes = from.ByteLength()](DeviceContext& context) { context.copy_in(to, staged.get(), bytes); });
}

void copy_within(const Napi::CallbackInfo& info) {
  device_of(info).queue->push([to = address(info, 1), from = address(info, 2), bytes = static_cast<std::size_t>(integer(info, 3))](
                                  DeviceContext& context) { context.copy_within(to, from, bytes); });
}

void fill_bytes(const Napi::CallbackInfo& info) {
  device_of(info).queue->push(
      [to = address(info, 1), value = static_cast<int>(integer(info, 2)),
       bytes = static_cast<std::size_t>(integer(info, 3))](DeviceContext& context) { context.fill_bytes(to, value, bytes); });
}

void check_bytes(const Napi::CallbackInfo& info) {
  device_of(info).queue->push([from = address(info, 1), value = static_cast<unsigned char>(integer(info, 2)),
                               bytes = static_cast<std::size_t>(integer(info, 3)),
                               what = info[4].ToString().Utf8Value()](DeviceContext& context) {
    std::vector<unsigned char> found(bytes);
    context.copy_out(found.data(), from, bytes);
    for (std::size_t i = 0; i < bytes; ++i) MST_CHECK(found[i] == value, what, ": byte ", i, " was overwritten");
  });
}

Napi::Value read(const Napi::CallbackInfo& info) {
  Napi::Uint8Array into = bytes_of(info, 2);
  return fenced(
      info,
      [from = address(info, 1), to = into.Data(), bytes = into.ByteLength()](DeviceContext& context) { context.copy_out(to, from, bytes); },
      into);
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  return fenced(info, nullptr, Napi::Object::New(info.Env()));
}

template <void (DeviceContext::*call)()>
void enqueue(const Napi::CallbackInfo& info) {
  device_of(info).queue->push([](DeviceContext& context) { (context.*call)(); });
}

Napi::Value describe_cuda_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CudaReport report = describe_cuda();
  auto result = Napi::Object::New(env);
  result.Set("built", report.built);
  result.Set("architectures", report.architectures);
  result.Set("runtimeVersion", report.runtime_version);
  result.Set("driverVersion", report.driver_version);
  result.Set("cublasLtPath", report.cublaslt_path);
  result.Set("cublasLtVersion", static_cast<double>(report.cublaslt_version));
  result.Set("cublasLtProblem", report.cublaslt_problem);
  result.Set("cudnnPath", report.cudnn_path);
  result.Set("cudnnVersion", static_cast<double>(report.cudnn_version));
  result.Set("cudnnProblem", report.cudnn_problem);
  result.Set("problem", report.problem);
  auto tried = Napi::Array::New(env);
  for (const std::string& path : report.cublaslt_tried) tried.Set(tried.Length(), path);
  result.Set("cublasLtTried", tried);
  auto devices = Napi::Array::New(env);
  for (const CudaDevice& device : report.devices) {
    auto entry = Napi::Object::New(env);
    entry.Set("index", device.index);
    entry.Set("name", device.name);
    entry.Set("computeCapability", message_of(device.major, '.', device.minor));
    entry.Set("numMultiprocessors", device.num_multiprocessors);
    entry.Set("totalBytes", static_cast<double>(device.total_bytes));
    entry.Set("freeBytes", static_cast<double>(device.free_bytes));
    entry.Set("problem", device.problem);
    devices.Set(devices.Length(), entry);
  }
  result.Set("devices", devices);
  return result;
}

void set_cuda_library_path_call(const Napi::CallbackInfo& info) {
  std::vector<std::string> directories;
  const auto list = info[0].As<Napi::Array>();
  for (std::uint32_t i = 0; i < list.Length(); ++i) directories.push_back(list.Get(i).ToString().Utf8Value());
  set_cuda_library_path(std::move(directories));
}

}  // namespace

void add_device_calls(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) { exports.Set(name, Napi::Function::New(env, function, name)); };
  add("open_device", open_device);
  add("close_device", close_device);
  add("reserve", reserve);
  add("map", map);
  add("unmap", unmap);
  add("available_bytes", available_bytes);
  add("write", write);
  add("copy_within", copy_within);
  add("fill_bytes", fill_bytes);
  add("check_bytes", check_bytes);
  add("read", read);
  add("synchronize", synchronize);
  add("begin_capture", enqueue<&DeviceContext::begin_capture>);
  add("end_capture", enqueue<&DeviceContext::end_capture>);
  add("replay", enqueue<&DeviceContext::replay>);
  add("describe_cuda", describe_cuda_call);
  add("set_cuda_library_path", set_cuda_library_path_call);
}

}  // namespace mst
