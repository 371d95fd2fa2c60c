// A CUDA device: its memory by virtual memory management, its stream, copies, and the errors that kernels note.
#include "../device.h"

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "cudnn_attention.h"
#include "driver.h"
#include "own_matmul.h"
#include "tuning.h"

namespace mst {
namespace cuda {
namespace {

constexpr std::size_t num_status_words = 4;

// Status words for each command that asks for them, until they are read.
class Notes {
 public:
  void allocate(cudaStream_t stream) {
    constexpr std::size_t bytes = DeviceContext::max_notes * num_status_words * sizeof(long long);
    CUDA_CHECK(cudaMalloc(&words_, bytes));
    CUDA_CHECK(cudaMemsetAsync(words_, 0, bytes, stream));
  }
  void free() {
    cudaFree(words_);
  }

  void begin_command(std::uint64_t number) {
    command_ = number;
  }
  std::size_t size() const {
    return commands_.size();
  }
  long long* of_command() {
    if (commands_.empty() || commands_.back() != command_) {
      MST_CHECK(commands_.size() < DeviceContext::max_notes, "cuda: no room for what kernels find wrong");
      commands_.push_back(command_);
    }
    return words_ + (commands_.size() - 1) * num_status_words;
  }
  // Kernels of a graph note where they did when they were captured.
  void replay(std::size_t size) {
    if (commands_.size() < size) commands_.resize(size, command_);
  }

  std::vector<DeviceContext::Note> take(cudaStream_t stream) {
    std::vector<DeviceContext::Note> notes;
    if (commands_.empty()) return notes;
    std::vector<std::array<long long, num_status_words>> words(commands_.size());
    const std::size_t bytes = words.size() * sizeof words[0];
    CUDA_CHECK(cudaMemcpyAsync(words.data(), words_, bytes, cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
    constexpr const char* ops[] = {"", "embedding_forward", "embedding_backward", "cross_entropy"};
    for (std::size_t i = 0; i < words.size(); ++i)
      if (const auto [status, row, id, size] = words[i]; status != status_ok)
        notes.push_back({commands_[i], message_of(ops[status], ": row ", row, " holds id ", id, ", outside [0, ", size, ")")});
    if (!notes.empty()) CUDA_CHECK(cudaMemsetAsync(words_, 0, bytes, stream));
    commands_.clear();
    return notes;
  }

 private:
  long long* words_ = nullptr;           // on the device
  std::vector<std::uint64_t> commands_;  // whose words are in use, in their order
  std::uint64_t command_ = 0;
};

thread_local cudaStream_t thread_stream = nullptr;
thread_local Notes* thread_notes = nullptr;

template <class Function>
void find(const char* name, Function& function) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
  MST_CHECK(status == cudaSuccess && found == cudaDriverEntryPointSuccess, "cuda: the driver has no ", name, "; it is too old");
  function = reinterpret_cast<Function>(address);
}

void check(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  const char* text = "unknown error";
  driver().get_error_string(status, &text);
  if (status == CUDA_ERROR_OUT_OF_MEMORY) throw OutOfMemory(message_of("cuda: ", call, ": ", text));
  MST_FAIL("cuda: ", call, ": ", text);
}

class CudaContext final : public DeviceContext {
 public:
  CudaContext(int index, bool uses_cudnn_attention, std::string own_products_reason, std::string tuning_directory)
      : index_(index),
        uses_cudnn_attention_(uses_cudnn_attention),
        own_products_reason_(std::move(own_products_reason)),
        tuning_directory_(std::move(tuning_directory)) {
    CUDA_CHECK(cudaSetDevice(index));
    CUDA_CHECK(cudaFree(nullptr));  // makes the device's context, which the driver calls need
    properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties_.location = {CU_MEM_LOCATION_TYPE_DEVICE, index};
    check(driver().mem_get_allocation_granularity(&granularity_, &properties_, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
          "cuMemGetAllocationGranularity");
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    notes_.allocate(stream_);
  }

  ~CudaContext() override {
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    if (graph_) cudaGraphExecDestroy(graph_);
    for (const auto& [begin, piece] : pieces_) {
      driver().mem_unmap(begin, piece.bytes);
      driver().mem_release(piece.handle);
    }
    for (const auto& [base, bytes] : reserved_) driver().mem_address_free(base, bytes);
    notes_.free();
    cudaStreamDestroy(stream_);
  }

  std::size_t granularity() const override {
    return granularity_;
  }

  char* reserve(std::size_t bytes) override {
    set_device();
    CUdeviceptr base = 0;
    check(driver().mem_address_reserve(&base, bytes, 0, 0, 0), "cuMemAddressReserve");
    reserved_.emplace_back(base, bytes);
    return reinterpret_cast<char*>(base);
  }

  void map(char* begin, std::size_t bytes) override {
    set_device();
    const auto address = reinterpret_cast<CUdeviceptr>(begin);
    Piece piece{0, bytes};
    check(driver().mem_create(&piece.handle, bytes, &properties_, 0), "cuMemCreate");
    CUmemAccessDesc access{properties_.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    try {
      check(driver().mem_map(address, bytes, 0, piece.handle, 0), "cuMemMap");
      check(driver().mem_set_access(address, bytes, &access, 1), "cuMemSetAccess");
    } catch (...) {
      driver().mem_unmap(address, bytes);
      driver().mem_release(piece.handle);
      throw;
    }
    pieces_[address] = piece;
  }

  // Takes whole pieces, as map() made them.
  void unmap(char* begin, std::size_t bytes) override {
    const auto first = reinterpret_cast<CUdeviceptr>(begin);
    for (auto piece = pieces_.lower_bound(first); piece != pieces_.end() && piece->first < first + bytes; piece = pieces_.erase(piece)) {
      check(driver().mem_unmap(piece->first, piece->second.bytes), "cuMemUnmap");
      check(driver().mem_release(piece->second.handle), "cuMemRelease");
    }
  }

  std::size_t available_bytes() const override {
    set_device();
    std::size_t free_bytes = 0, total_bytes = 0;
    CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    return free_bytes;
  }

  std::string own_products_reason() const override {
    return own_products_reason_;
  }

  bool uses_cudnn_attention() const override {
    return uses_cudnn_attention_;
  }

  void attach_thread() override {
    set_device();
    use_cudnn_attention(uses_cudnn_attention_);
    use_own_products(!own_products_reason_.empty());
    use_tuning(index_, tuning_directory_);
    thread_stream = stream_;
    thread_notes = &notes_;
  }

  // From pageable memory the copy is staged by the runtime before it returns, so that `from` may be freed.
  void copy_in(void* to, const void* from, std::size_t bytes) override {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_));
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }
  void copy_out(void* to, const void* from, std::size_t bytes) override {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }
  void copy_within(void* to, const void* from, std::size_t bytes) override {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
  }
  void fill_bytes(void* to, int value, std::size_t bytes) override {
    CUDA_CHECK(cudaMemsetAsync(to, value, bytes, stream_));
  }
  void synchronize() override {
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

  void begin_command(std::uint64_t number) override {
    notes_.begin_command(number);
  }
  std::size_t num_notes() const override {
    return notes_.size();
  }
  std::vector<Note> take_notes() override {
    return notes_.take(stream_);
  }

  // Relaxed: the arena may map memory from another thread meanwhile.
  void begin_capture() override {
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
  }
  void end_capture() override {
    if (graph_) CUDA_CHECK(cudaGraphExecDestroy(std::exchange(graph_, nullptr)));
    cudaGraph_t captured = nullptr;
    CUDA_CHECK(cudaStreamEndCapture(stream_, &captured));
    const cudaError_t status = cudaGraphInstantiate(&graph_, captured, 0);
    cudaGraphDestroy(captured);
    MST_CHECK(status == cudaSuccess, "cuda: cudaGraphInstantiate: ", cudaGetErrorString(status));
    num_captured_notes_ = notes_.size();
  }
  void replay() override {
    MST_CHECK(graph_, "cuda: nothing was captured");
    notes_.replay(num_captured_notes_);
    CUDA_CHECK(cudaGraphLaunch(graph_, stream_));
  }

  // An error that comes again after it was read is the context's, and CUDA has no way back from it.
  std::string loss() override {
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    cudaGetLastError();
    const cudaError_t status = cudaStreamSynchronize(stream_);
    if (status == cudaSuccess) return "";
    return message_of("cuda:", index_, ": the device was lost: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
  }

 private:
  struct Piece {
    CUmemGenericAllocationHandle handle;
    std::size_t bytes;
  };

  void set_device() const {
    CUDA_CHECK(cudaSetDevice(index_));
  }

  int index_;
  bool uses_cudnn_attention_;
  std::string own_products_reason_;
  std::string tuning_directory_;
  CUmemAllocationProp properties_{};
  std::size_t granularity_ = 0;
  cudaStream_t stream_ = nullptr;
  Notes notes_;
  cudaGraphExec_t graph_ = nullptr;  // of the last capture
  std::size_t num_captured_notes_ = 0;
  std::vector<std::pair<CUdeviceptr, std::size_t>> reserved_;
  std::map<CUdeviceptr, Piece> pieces_;
};

}  // namespace

cudaStream_t current_stream() {
  return thread_stream;
}
long long* status_words() {
  return thread_notes->of_command();
}

const Driver& driver() {
  static const Driver found = [] {
    Driver driver{};
    find("cuMemAddressReserve", driver.mem_address_reserve);
    find("cuMemAddressFree", driver.mem_address_free);
    find("cuMemCreate", driver.mem_create);
    find("cuMemRelease", driver.mem_release);
    find("cuMemMap", driver.mem_map);
    find("cuMemUnmap", driver.mem_unmap);
    find("cuMemSetAccess", driver.mem_set_access);
    find("cuMemGetAllocationGranularity", driver.mem_get_allocation_granularity);
    find("cuGetErrorString", driver.get_error_string);
    return driver;
  }();
  return found;
}

}  // namespace cuda

std::unique_ptr<DeviceContext> open_cuda(int index, const CudaOptions& options) {
  const std::string problem = cuda::device_problem(index);
  MST_CHECK(problem.empty(), "cuda:", index, ": ", problem);
  const std::string cudnn_problem = options.attention == "own" ? "not asked for" : cuda::cudnn_attention_problem(index);
  MST_CHECK(options.attention != "cudnn" || cudnn_problem.empty(), "cuda:", index, ": attention by cuDNN: ", cudnn_problem);
  const std::string own_products_reason = options.products == "own" ? "asked for" : cuda::find_cublaslt().problem;
  return std::make_unique<cuda::CudaContext>(index, cudnn_problem.empty(), own_products_reason, options.tuning_directory);
}

}  // namespace mst
