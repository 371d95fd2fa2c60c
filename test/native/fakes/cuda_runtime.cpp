// A CUDA runtime without a GPU: the calls that the addon makes, with host memory behind them. Kernels run nowhere and succeed. Linked
// into an addon of its own instead of NVIDIA's, it shows what the addon makes of faults. Environment variables, read at each call:
//   FAKE_CUDA_DEVICES   number of devices; default 1
//   FAKE_CUDA_COMPUTE   their compute capability, 80 or 90 as the code that is built, others have none; default 80
//   FAKE_CUDA_BYTES     memory of a device; default 1 GiB, of which a context takes 16 MiB
//   FAKE_CUDA_HOST_BYTES   the most that one allocation of pinned memory may take; default 1 GiB
//   FAKE_CUDA_PINNING_WAITS   a file: pages are pinned when it is there; after 10 s without it, that fails
//   FAKE_CUDA_PINS_NO_PAGES   1: the system does not allow to pin a process's pages
//   FAKE_CUDA_LOSS      an error: from then on every call that works on the device fails with it
//   FAKE_CUDA_ORDER     commands-first or copies-first: of the first stream and all others, these run at once and those as late as events
//                       and waits allow; default: everything runs at once
//   FAKE_CUDA_FAILURE   an error: each launch fails with it and the device goes on
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string_view>

namespace {

constexpr std::size_t mib = 1 << 20, page = 2 * mib, context_bytes = 16 * mib;

std::size_t number(const char* variable, std::size_t otherwise) {
  const char* const value = std::getenv(variable);
  return value && *value ? std::strtoull(value, nullptr, 10) : otherwise;
}

thread_local cudaError_t last = cudaSuccess;
std::mutex mutex;  // of what follows
std::size_t used_bytes = context_bytes;
std::map<void*, std::size_t> sizes;

cudaError_t note(cudaError_t status) {
  if (status != cudaSuccess) last = status;
  return status;
}

cudaError_t loss() {
  return note(static_cast<cudaError_t>(number("FAKE_CUDA_LOSS", cudaSuccess)));
}

CUresult driver_loss() {
  return static_cast<CUresult>(number("FAKE_CUDA_LOSS", CUDA_SUCCESS));  // the numbers are the same
}

std::size_t total_bytes() {
  return number("FAKE_CUDA_BYTES", 1024 * mib);
}

bool take(std::size_t bytes) {
  const std::lock_guard lock(mutex);
  if (used_bytes + bytes > total_bytes()) return false;
  used_bytes += bytes;
  return true;
}

void give(std::size_t bytes) {
  const std::lock_guard lock(mutex);
  used_bytes -= bytes;
}

// ---- Streams: what is enqueued runs at once, or when somebody waits for it

std::recursive_mutex streams_mutex;  // of what follows

struct Stream {
  bool is_first;
  std::uint64_t num_enqueued = 0, num_done = 0;
  std::deque<std::function<void()>> work;

  bool runs_at_once() const {
    const char* const value = std::getenv("FAKE_CUDA_ORDER");
    const std::string_view order = value ? value : "";
    return order == "commands-first" ? is_first : order == "copies-first" ? !is_first : true;
  }
  void run_until(std::uint64_t end) {
    while (num_done < end) {
      const auto next = std::move(work.front());
      work.pop_front();
      next();
      ++num_done;
    }
  }
};
std::deque<Stream> streams;  // never destroyed: what they have to do goes on

// What a stream had to do when the event was recorded last.
struct Event {
  Stream* stream = nullptr;
  std::uint64_t end = 0;
};

Stream* stream_of(cudaStream_t stream) {
  return reinterpret_cast<Stream*>(stream);
}
Event* event_of(cudaEvent_t event) {
  return reinterpret_cast<Event*>(event);
}

void enqueue(cudaStream_t handle, std::function<void()> work) {
  const std::lock_guard lock(streams_mutex);
  Stream* const stream = stream_of(handle);
  if (!stream) return work();
  stream->work.push_back(std::move(work));
  ++stream->num_enqueued;
  if (stream->runs_at_once()) stream->run_until(stream->num_enqueued);
}

void finish(cudaStream_t handle) {
  const std::lock_guard lock(streams_mutex);
  if (Stream* const stream = stream_of(handle)) stream->run_until(stream->num_enqueued);
}

// ---- The driver's calls

CUresult reserve(CUdeviceptr* base, std::size_t bytes, std::size_t, CUdeviceptr, unsigned long long) {
  void* const found = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *base = reinterpret_cast<CUdeviceptr>(found);
  return found == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult free_addresses(CUdeviceptr base, std::size_t bytes) {
  munmap(reinterpret_cast<void*>(base), bytes);
  return CUDA_SUCCESS;
}

// A handle is the number of bytes.
CUresult create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp*, unsigned long long) {
  if (const CUresult lost = driver_loss()) return lost;
  *handle = bytes;
  return take(bytes) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult release(CUmemGenericAllocationHandle handle) {
  if (const CUresult lost = driver_loss()) return lost;
  give(handle);
  return CUDA_SUCCESS;
}

CUresult map(CUdeviceptr at, std::size_t bytes, std::size_t, CUmemGenericAllocationHandle, unsigned long long) {
  if (const CUresult lost = driver_loss()) return lost;
  mprotect(reinterpret_cast<void*>(at), bytes, PROT_READ | PROT_WRITE);
  return CUDA_SUCCESS;
}

CUresult unmap(CUdeviceptr at, std::size_t bytes) {
  if (const CUresult lost = driver_loss()) return lost;
  madvise(reinterpret_cast<void*>(at), bytes, MADV_DONTNEED);
  mprotect(reinterpret_cast<void*>(at), bytes, PROT_NONE);
  return CUDA_SUCCESS;
}

CUresult set_access(CUdeviceptr, std::size_t, const CUmemAccessDesc*, std::size_t) {
  return driver_loss();
}

CUresult granularity(std::size_t* bytes, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  *bytes = page;
  return driver_loss();
}

CUresult error_string(CUresult status, const char** text) {
  *text = cudaGetErrorString(static_cast<cudaError_t>(status));
  return CUDA_SUCCESS;
}

const std::map<std::string_view, void*> driver_calls = {
    {"cuMemAddressReserve", reinterpret_cast<void*>(reserve)},
    {"cuMemAddressFree", reinterpret_cast<void*>(free_addresses)},
    {"cuMemCreate", reinterpret_cast<void*>(create)},
    {"cuMemRelease", reinterpret_cast<void*>(release)},
    {"cuMemMap", reinterpret_cast<void*>(map)},
    {"cuMemUnmap", reinterpret_cast<void*>(unmap)},
    {"cuMemSetAccess", reinterpret_cast<void*>(set_access)},
    {"cuMemGetAllocationGranularity", reinterpret_cast<void*>(granularity)},
    {"cuGetErrorString", reinterpret_cast<void*>(error_string)},
};

}  // namespace

// ---- The runtime's

extern "C" {

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(number("FAKE_CUDA_DEVICES", 1));
  return *count > 0 ? cudaSuccess : note(cudaErrorNoDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const auto compute = static_cast<int>(number("FAKE_CUDA_COMPUTE", 80));
  *properties = {};
  std::strcpy(properties->name, "Fake GPU");
  properties->major = compute / 10;
  properties->minor = compute % 10;
  properties->multiProcessorCount = 108;
  properties->totalGlobalMem = total_bytes();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  constexpr int shared_bytes = 163 << 10;
  *value = attribute == cudaDevAttrComputeCapabilityMajor         ? properties.major
           : attribute == cudaDevAttrComputeCapabilityMinor       ? properties.minor
           : attribute == cudaDevAttrMultiProcessorCount          ? properties.multiProcessorCount
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? shared_bytes
                                                                  : 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
      return "cudaErrorECCUncorrectable";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorECCUncorrectable:
      return "uncorrectable ECC error encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "some error";
  }
}
cudaError_t cudaGetLastError() {
  const cudaError_t found = last;
  last = cudaSuccess;
  return found;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* all_bytes) {
  const std::lock_guard lock(mutex);
  *all_bytes = total_bytes();
  *free_bytes = *all_bytes - used_bytes;
  return loss();
}
cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (const cudaError_t lost = loss()) return lost;
  if (!take(bytes)) return note(cudaErrorMemoryAllocation);
  *pointer = std::calloc(1, bytes);
  const std::lock_guard lock(mutex);
  sizes[*pointer] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (const cudaError_t lost = loss(); lost || !pointer) return lost;
  give(sizes[pointer]);
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  if (const cudaError_t lost = loss()) return lost;
  if (bytes > number("FAKE_CUDA_HOST_BYTES", 1024 * mib)) return note(cudaErrorMemoryAllocation);
  *pointer = std::calloc(1, bytes);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void*, std::size_t bytes, unsigned) {
  if (const cudaError_t lost = loss()) return lost;
  if (const char* const file = std::getenv("FAKE_CUDA_PINNING_WAITS"))
    for (int i = 0; access(file, F_OK) != 0; ++i) {
      if (i == 1000) return note(cudaErrorUnknown);
      usleep(10'000);
    }
  if (number("FAKE_CUDA_PINS_NO_PAGES", 0)) return note(cudaErrorNotSupported);
  return bytes > number("FAKE_CUDA_HOST_BYTES", 1024 * mib) ? note(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaHostUnregister(void*) {
  return loss();
}
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return loss();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (const cudaError_t lost = loss()) return lost;
  enqueue(stream, [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (const cudaError_t lost = loss()) return lost;
  enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(streams_mutex);
  streams.push_back({.is_first = streams.empty()});
  *stream = reinterpret_cast<cudaStream_t>(&streams.back());
  return loss();
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  return loss();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  finish(stream);
  return loss();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (const Event recorded = *event_of(event); recorded.stream) enqueue(stream, [recorded] { recorded.stream->run_until(recorded.end); });
  return loss();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return loss();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event_of(event);
  return loss();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(streams_mutex);
  *event_of(event) = {stream_of(stream), stream ? stream_of(stream)->num_enqueued : 0};
  return loss();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(streams_mutex);
  if (const Event recorded = *event_of(event); recorded.stream) recorded.stream->run_until(recorded.end);
  return loss();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return loss();
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  if (const cudaError_t lost = loss()) return lost;
  const std::size_t compute = number("FAKE_CUDA_COMPUTE", 80);
  return compute == 80 || compute == 90 ? cudaSuccess : note(cudaErrorNoKernelImageForDevice);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return loss();
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) {
  if (const cudaError_t lost = loss()) return lost;
  return note(static_cast<cudaError_t>(number("FAKE_CUDA_FAILURE", cudaSuccess)));
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** call, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const auto found = driver_calls.find(name);
  *call = found == driver_calls.end() ? nullptr : found->second;
  *result = *call ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

// Graphs of captured commands, which only benchmarks use.
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return cudaErrorNotSupported;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  return cudaErrorNotSupported;
}

// What nvcc's code calls of its own: to register kernels, and for <<<>>>, which nothing here uses.
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) {
  return cudaErrorNotSupported;
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) {
  return cudaErrorNotSupported;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}

}  // extern "C"
