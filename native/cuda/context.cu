// See context.h.
#include "context.h"

#include <utility>

#include "../runtime/device.h"
#include "attention/cudnn_attention_plans.h"
#include "common/check.h"
#include "libraries/driver.h"
#include "matmul/cublaslt_products.h"
#include "nccl_group.h"

namespace mst {
namespace cuda {
namespace {

// Makes the device current and creates its CUDA context, which the driver's calls need.
int made_current(int index) {
  CUDA_CHECK(cudaSetDevice(index));
  CUDA_CHECK(cudaFree(nullptr));
  return index;
}

std::size_t shared_bytes_of(int index) {
  int bytes = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  return static_cast<std::size_t>(bytes);
}

}  // namespace

Context::Context(int index, Choices choices)
    : mst::Context({Device::cuda, index}),
      index_(made_current(index)),
      choices_(std::move(choices)),
      max_shared_bytes_(shared_bytes_of(index)),
      memory_(index),
      notes_(stream_) {
  if (choices_.builtin_matmul_reason.empty())
    cublaslt_products_ = std::make_unique<CublasLtProducts>(stream_, index, choices_.tuning_directory);
  if (choices_.uses_cudnn_attention) cudnn_attention_ = std::make_unique<CudnnAttention>(stream_);
}

Context::~Context() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_.get());
  leave();
  if (graph_) cudaGraphExecDestroy(graph_);
}

std::unique_ptr<ProcessGroup> Context::make_group(const Rank& rank) {
  return make_nccl_group(rank, stream_);
}

void Context::attach_thread() {
  CUDA_CHECK(cudaSetDevice(index_));
}

// Waits for the copy: the caller may free `from` on return, and not every system stages pageable memory before cudaMemcpyAsync returns.
void Context::copy_in(void* to, const void* from, std::size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_.get()));
  stream_.synchronize();
}
void Context::copy_out(void* to, const void* from, std::size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()));
  stream_.synchronize();
}
void Context::copy_within(void* to, const void* from, std::size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()));
}
void Context::fill_bytes(void* to, int value, std::size_t bytes) {
  CUDA_CHECK(cudaMemsetAsync(to, value, bytes, stream_.get()));
}
void Context::synchronize() {
  stream_.synchronize();
  copies_.synchronize();
}

void Context::copy_beside(CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t event) {
  MST_CHECK(!is_capturing_, "cuda: copies beside commands cannot be captured");
  copies_.copy(stream, to, from, bytes, event);
}
void Context::wait_for(std::uint64_t event) {
  MST_CHECK(!is_capturing_, "cuda: a wait for a copy cannot be captured");
  copies_.wait_for(event);
}

// An error that comes again after it has been read belongs to the CUDA context, which cannot be recovered.
std::string Context::loss() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_.get());
  cudaGetLastError();
  const cudaError_t status = cudaStreamSynchronize(stream_.get());
  if (status == cudaSuccess) return "";
  return message_of("cuda:", index_, ": the device was lost: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

// Relaxed mode: another thread may map memory for the arena meanwhile.
void Context::begin_capture() {
  CUDA_CHECK(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeRelaxed));
  is_capturing_ = true;
}
void Context::end_capture() {
  is_capturing_ = false;
  if (graph_) CUDA_CHECK(cudaGraphExecDestroy(std::exchange(graph_, nullptr)));
  cudaGraph_t captured = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(stream_.get(), &captured));
  const cudaError_t status = cudaGraphInstantiate(&graph_, captured, 0);
  cudaGraphDestroy(captured);
  MST_CHECK(status == cudaSuccess, "cuda: cudaGraphInstantiate: ", cudaGetErrorString(status));
  num_captured_notes_ = notes_.size();
}
void Context::replay() {
  MST_CHECK(graph_, "cuda: nothing was captured");
  notes_.replay(num_captured_notes_);
  CUDA_CHECK(cudaGraphLaunch(graph_, stream_.get()));
}

Context& context_of(mst::Context& context) {
  return static_cast<Context&>(context);
}

}  // namespace cuda

std::unique_ptr<Context> open_cuda(int index, const CudaOptions& options) {
  const std::string problem = cuda::device_problem(index);
  MST_CHECK(problem.empty(), "cuda:", index, ": ", problem);
  const std::string cudnn_problem = options.attention == "builtin" ? "not asked for" : cuda::cudnn_attention_problem(index);
  MST_CHECK(options.attention != "cudnn" || cudnn_problem.empty(), "cuda:", index, ": attention by cuDNN: ", cudnn_problem);
  const std::string builtin_matmul_reason = options.matmul == "builtin" ? "asked for" : cuda::find_cublaslt().problem;
  return std::make_unique<cuda::Context>(index,
                                         cuda::Context::Choices{cudnn_problem.empty(), builtin_matmul_reason, options.tuning_directory});
}

}  // namespace mst
