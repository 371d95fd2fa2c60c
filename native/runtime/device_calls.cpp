// See device_calls.h.
#include "device_calls.h"

#include <cstring>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "device.h"
#include "environment.h"

namespace mst {
namespace {

std::string text(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsString()) throw ArgumentError(message_of("native: argument ", index + 1, " must be a string"));
  return info[index].As<Napi::String>().Utf8Value();
}

std::int64_t integer(const Napi::CallbackInfo& info, std::size_t index, std::int64_t min, std::int64_t max) {
  const double number = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : std::nan("");
  if (!is_integer(number, min, max))
    throw ArgumentError(message_of("native: argument ", index + 1, " must be an integer from ", min, " to ", max));
  return static_cast<std::int64_t>(number);
}

Napi::Uint8Array bytes_of(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsTypedArray() || info[index].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw ArgumentError(message_of("native: argument ", index + 1, " must be a Uint8Array"));
  return info[index].As<Napi::Uint8Array>();
}

std::shared_ptr<OpenDevice> device_of(const Napi::CallbackInfo& info) {
  return environment_of(info).find(info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : std::nan(""));
}

// A range of a device's addresses.
struct Piece {
  char* at;
  std::size_t bytes;

  std::uintptr_t begin() const {
    return reinterpret_cast<std::uintptr_t>(at);
  }
  std::uintptr_t end() const {
    return begin() + bytes;
  }
  // `owner` is that of the tensor there; see failures.h.
  Accesses access(Access::Kind kind, std::int64_t owner) const {
    return {{kind, begin(), end(), static_cast<std::uint64_t>(owner)}};
  }
};

Piece piece_at(const Napi::CallbackInfo& info, std::size_t index, std::size_t bytes, const Ranges& within) {
  const Piece piece{reinterpret_cast<char*>(integer(info, index, 0, max_safe_integer)), bytes};
  if (!within.contain(piece.begin(), piece.end()))
    throw ArgumentError(message_of("native: argument ", index + 1, ": ", bytes, " bytes there are not in the device's memory"));
  return piece;
}

// A range in the device's memory, or in host memory for copies beside commands.
Piece piece_on_either(const Napi::CallbackInfo& info, std::size_t index, std::size_t bytes, const OpenDevice& open) {
  const Piece piece{reinterpret_cast<char*>(integer(info, index, 0, max_safe_integer)), bytes};
  return open.host_contains(piece.begin(), piece.end()) ? piece : piece_at(info, index, bytes, open.mapped);
}

// [address, bytes] from two consecutive arguments.
Piece piece(const Napi::CallbackInfo& info, std::size_t index, const Ranges& within) {
  return piece_at(info, index, static_cast<std::size_t>(integer(info, index + 1, 0, max_safe_integer)), within);
}

// At least one page, and whole pages only.
Piece pages(const Napi::CallbackInfo& info, const OpenDevice& open, const Ranges& within) {
  const Piece found = piece(info, 1, within);
  constexpr std::size_t page = 4096;  // of the host; addresses are reserved at multiples of it
  if (found.bytes == 0 || found.bytes % open.granularity != 0 || found.begin() % page != 0)
    throw ArgumentError(message_of("native: ", found.bytes, " bytes at ", found.begin(), " are not whole pages of ", open.granularity));
  return found;
}

std::int64_t owner(const Napi::CallbackInfo& info, std::size_t index) {
  return info[index].IsUndefined() ? 0 : integer(info, index, 0, max_safe_integer);
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string kind = text(info, 0);
  if (kind != "cpu" && kind != "cuda")
    throw ArgumentError(message_of("native: the kind of a device must be 'cpu' or 'cuda', got '", kind, "'"));
  constexpr std::int64_t max_int = std::numeric_limits<int>::max();
  const int index = static_cast<int>(integer(info, 1, 0, max_int)), threads = static_cast<int>(integer(info, 2, 1, max_int));
  auto context = kind == "cuda" ? open_cuda(index, {text(info, 3), text(info, 4), text(info, 5)}) : open_cpu(threads);
  const auto granularity = static_cast<double>(context->memory().granularity());
  const std::string builtin_matmul_reason = context->builtin_matmul_reason();
  const char* const attention = context->uses_cudnn_attention() ? "cudnn" : "builtin";
  auto result = Napi::Object::New(env);
  result.Set("granularity", granularity);
  result.Set("attention", attention);
  result.Set("builtinMatmulReason", builtin_matmul_reason);
  result.Set("id", static_cast<double>(environment_of(info).open(std::move(context))));
  return result;
}

void close_device(const Napi::CallbackInfo& info) {
  environment_of(info).close(integer(info, 0, 0, max_safe_integer));
}

void close_all(const Napi::CallbackInfo& info) {
  environment_of(info).close_all();
}

Napi::Value reserve(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  constexpr std::int64_t most = std::int64_t{1} << 47;  // addresses of a process
  const auto bytes = static_cast<std::size_t>(integer(info, 1, 1, most));
  char* const base = open->queue.call([bytes](Context& context) { return context.memory().reserve(bytes); });
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  open->reserved.add(begin, begin + bytes);
  return Napi::Number::New(info.Env(), static_cast<double>(begin));
}

void map(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Piece to = pages(info, *open, open->reserved);
  open->queue.call([to](Context& context) { context.memory().map(to.at, to.bytes); });
  open->mapped.add(to.begin(), to.end());
}

void unmap(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Piece from = pages(info, *open, open->mapped);
  // In queue order, so that no command still uses the pages.
  open->queue.push([from](Context& context) {
    context.synchronize();
    context.memory().unmap(from.at, from.bytes);
  });
  open->mapped.remove(from.begin(), from.end());
}

Napi::Value available_bytes(const Napi::CallbackInfo& info) {
  const std::size_t bytes = device_of(info)->queue.call([](Context& context) { return context.memory().available_bytes(); });
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

Napi::Value allocate_host(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const auto bytes = static_cast<std::size_t>(integer(info, 1, 1, max_safe_integer));
  const char* const begin = open->queue.call([bytes](Context& context) { return context.memory().allocate_host(bytes); });
  open->host.emplace(reinterpret_cast<std::uintptr_t>(begin), bytes);
  return Napi::Number::New(info.Env(), static_cast<double>(reinterpret_cast<std::uintptr_t>(begin)));
}

// Waits until the memory is freed: the next allocation may need it.
void free_host(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const auto begin = static_cast<std::uintptr_t>(integer(info, 1, 0, max_safe_integer));
  if (open->host.erase(begin) == 0) throw ArgumentError("native: argument 2: no host memory of the device begins there");
  auto done = std::make_shared<std::promise<void>>();
  const std::future<void> freed = done->get_future();
  open->queue.push([begin, done = std::move(done)](Context& context) {
    context.synchronize();
    context.memory().free_host(reinterpret_cast<char*>(begin));
    done->set_value();
  });
  freed.wait();  // also returns if the command fails: it destroys its promise
}

Napi::Value reallocate_host(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const auto before = static_cast<std::uintptr_t>(integer(info, 1, 0, max_safe_integer));
  const auto bytes = static_cast<std::size_t>(integer(info, 2, 1, max_safe_integer));
  if (before != 0 && open->host.erase(before) == 0) throw ArgumentError("native: argument 2: no host memory of the device begins there");
  const auto allocated = std::make_shared<char*>(nullptr);
  Queue::Command command = [before, bytes, allocated](Context& context) {
    if (before != 0) {
      context.synchronize();
      context.memory().free_host(reinterpret_cast<char*>(before));
    }
    *allocated = context.memory().allocate_host(bytes);
  };
  auto settled = [bytes, allocated, device = std::weak_ptr(open)](bool is_fulfilled) {
    const auto begin = reinterpret_cast<std::uintptr_t>(*allocated);
    const auto open = device.lock();
    if (open && begin != 0) {
      if (is_fulfilled)
        open->host.emplace(begin, bytes);
      else  // with the error of an earlier command
        open->queue.push([begin](Context& context) { context.memory().free_host(reinterpret_cast<char*>(begin)); });
    }
    return static_cast<double>(begin);
  };
  return {info.Env(), environment_of(info).fence(open->queue, std::move(command), nullptr, {}, std::move(settled))};
}

void write(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Napi::Uint8Array from = bytes_of(info, 2);
  const Piece to = piece_at(info, 1, from.ByteLength(), open->mapped);
  Accesses accesses = to.access(Access::write, owner(info, 3));
  std::shared_ptr<char[]> staged(new char[to.bytes]);
  if (to.bytes > 0) std::memcpy(staged.get(), from.Data(), to.bytes);
  open->queue.push([to, staged](Context& context) { context.copy_in(to.at, staged.get(), to.bytes); }, std::move(accesses));
}

void copy_within(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Piece from = piece(info, 2, open->mapped), to = piece_at(info, 1, from.bytes, open->mapped);
  Accesses accesses = from.access(Access::read, 0);
  accesses.push_back(to.access(Access::write, 0).front());
  open->queue.push([to, from](Context& context) { context.copy_within(to.at, from.at, to.bytes); }, std::move(accesses));
}

// Returns the number of the copy's event. If `from` has failed, the copy does not run, and waiting for it does nothing.
Napi::Value copy_beside(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const auto stream = static_cast<Context::CopyStream>(integer(info, 1, Context::to_host, Context::to_device));
  const auto bytes = static_cast<std::size_t>(integer(info, 4, 0, max_safe_integer));
  const bool is_out = stream == Context::to_host;
  const Piece from = is_out ? piece_at(info, 3, bytes, open->mapped) : piece_on_either(info, 3, bytes, *open);
  const Piece to = is_out ? piece_on_either(info, 2, bytes, *open) : piece_at(info, 2, bytes, open->mapped);
  Accesses accesses = from.access(Access::read, 0);
  accesses.push_back(to.access(Access::write, 0).front());
  const std::int64_t event = ++open->num_events;
  open->queue.push([=](Context& context) { context.copy_beside(stream, to.at, from.at, to.bytes, static_cast<std::uint64_t>(event)); },
                   std::move(accesses));
  return Napi::Number::New(info.Env(), static_cast<double>(event));
}

void wait_for(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const auto event = static_cast<std::uint64_t>(integer(info, 1, 1, open->num_events));
  open->queue.push([event](Context& context) { context.wait_for(event); });
}

int byte(const Napi::CallbackInfo& info, std::size_t index) {
  return static_cast<int>(integer(info, index, 0, 255));
}

void fill_bytes(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Piece to = piece_at(info, 1, static_cast<std::size_t>(integer(info, 3, 0, max_safe_integer)), open->mapped);
  open->queue.push([to, value = byte(info, 2)](Context& context) { context.fill_bytes(to.at, value, to.bytes); },
                   to.access(Access::write, 0));
}

void check_bytes(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  const Piece from = piece_at(info, 1, static_cast<std::size_t>(integer(info, 3, 0, max_safe_integer)), open->mapped);
  open->queue.push([from, value = byte(info, 2), what = text(info, 4)](Context& context) {
    std::vector<unsigned char> found(from.bytes);
    context.copy_out(found.data(), from.at, from.bytes);
    for (std::size_t i = 0; i < from.bytes; ++i) MST_CHECK(found[i] == value, what, ": byte ", i, " was overwritten");
  });
}

Napi::Value read(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  Napi::Uint8Array into = bytes_of(info, 2);
  const Piece from = piece_at(info, 1, into.ByteLength(), open->mapped);
  Accesses accesses = from.access(Access::read, owner(info, 3));
  Queue::Command copy = [from, to = into.Data()](Context& context) { context.copy_out(to, from.at, from.bytes); };
  return {info.Env(), environment_of(info).fence(open->queue, std::move(copy), into, std::move(accesses))};
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  return {info.Env(), environment_of(info).fence(open->queue, nullptr, nullptr, {})};
}

Napi::Value join_group(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  constexpr std::int64_t most = 1 << 20;  // ranks
  const auto size = static_cast<int>(integer(info, 2, 1, most)), rank = static_cast<int>(integer(info, 1, 0, size - 1));
  const Rank place{rank, size, text(info, 3), static_cast<double>(integer(info, 4, 1, max_safe_integer))};
  const std::string address = open->queue.call([&](Context& context) { return context.join(place).address(); });
  auto bytes = Napi::Uint8Array::New(info.Env(), address.size());
  std::memcpy(bytes.Data(), address.data(), address.size());
  return bytes;
}

Napi::Value connect_group(const Napi::CallbackInfo& info) {
  const auto open = device_of(info);
  if (!info[1].IsArray()) throw ArgumentError("native: argument 2 must be an array");
  const auto list = info[1].As<Napi::Array>();
  std::vector<std::string> addresses;
  for (std::uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value each = list.Get(i);
    if (!each.IsTypedArray() || each.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
      throw ArgumentError("native: argument 2 must hold Uint8Arrays");
    const auto bytes = each.As<Napi::Uint8Array>();
    addresses.emplace_back(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
  }
  if (addresses.empty()) throw ArgumentError("native: argument 2 must not be empty");
  Queue::Command connect = [addresses = std::move(addresses)](Context& context) { context.group().connect(addresses); };
  return {info.Env(), environment_of(info).fence(open->queue, std::move(connect), nullptr, {})};
}

void abort_group(const Napi::CallbackInfo& info) {
  device_of(info)->queue.call([](Context& context) { context.group().abort(); });
}

template <void (Context::*call)()>
void enqueue(const Napi::CallbackInfo& info) {
  device_of(info)->queue.push([](Context& context) { (context.*call)(); });
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
  if (!info[0].IsArray()) throw ArgumentError("native: argument 1 must be an array");
  const auto list = info[0].As<Napi::Array>();
  for (std::uint32_t i = 0; i < list.Length(); ++i) directories.push_back(list.Get(i).ToString().Utf8Value());
  set_cuda_library_path(std::move(directories));
}

}  // namespace

void add_device_calls(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    const auto call = [function](const Napi::CallbackInfo& info) { return guarded(info.Env(), [&] { return function(info); }); };
    exports.Set(name, Napi::Function::New(env, call, name));
  };
  add("open_device", open_device);
  add("close_device", close_device);
  add("close_all", close_all);
  add("reserve", reserve);
  add("map", map);
  add("unmap", unmap);
  add("available_bytes", available_bytes);
  add("allocate_host", allocate_host);
  add("free_host", free_host);
  add("reallocate_host", reallocate_host);
  add("write", write);
  add("copy_within", copy_within);
  add("copy_beside", copy_beside);
  add("wait_for", wait_for);
  add("fill_bytes", fill_bytes);
  add("check_bytes", check_bytes);
  add("read", read);
  add("synchronize", synchronize);
  add("join_group", join_group);
  add("connect_group", connect_group);
  add("abort_group", abort_group);
  add("begin_capture", enqueue<&Context::begin_capture>);
  add("end_capture", enqueue<&Context::end_capture>);
  add("replay", enqueue<&Context::replay>);
  add("describe_cuda", describe_cuda_call);
  add("set_cuda_library_path", set_cuda_library_path_call);
}

}  // namespace mst
