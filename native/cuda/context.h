// A GPU as a device: its streams, notes of kernels, limits, and the state of NVIDIA's libraries.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "../runtime/context.h"
#include "copies.h"
#include "memory.h"
#include "notes.h"
#include "stream.h"

namespace mst::cuda {

class CublasLtProducts;
class CudnnAttention;

class Context final : public mst::Context {
 public:
  struct Choices {
    bool uses_cudnn_attention;
    std::string builtin_matmul_reason;  // why cuBLASLt is not used; empty if it is
    std::string tuning_directory;       // see tuning.h
  };
  Context(int index, Choices choices);
  ~Context() override;

  // The stream that commands run on.
  cudaStream_t stream() const {
    return stream_.get();
  }
  // Where kernels of the running command note an id that is out of range; see status.h.
  long long* status_words() {
    return notes_.of_command();
  }
  // Null if our kernels compute products.
  CublasLtProducts* cublaslt_products() {
    return cublaslt_products_.get();
  }
  // Null if our kernels compute attention.
  CudnnAttention* cudnn_attention() {
    return cudnn_attention_.get();
  }
  // Bytes of shared memory that a block may have.
  std::size_t max_shared_bytes() const {
    return max_shared_bytes_;
  }

  Memory& memory() override {
    return memory_;
  }
  std::string builtin_matmul_reason() const override {
    return choices_.builtin_matmul_reason;
  }
  bool uses_cudnn_attention() const override {
    return choices_.uses_cudnn_attention;
  }

  void attach_thread() override;
  void copy_in(void* to, const void* from, std::size_t bytes) override;
  void copy_out(void* to, const void* from, std::size_t bytes) override;
  void copy_within(void* to, const void* from, std::size_t bytes) override;
  void fill_bytes(void* to, int value, std::size_t bytes) override;
  void synchronize() override;

  void copy_beside(CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t event) override;
  void wait_for(std::uint64_t event) override;

  void begin_command(std::uint64_t number) override {
    notes_.begin_command(number);
  }
  std::size_t num_notes() const override {
    return notes_.size();
  }
  std::vector<Note> take_notes() override {
    return notes_.take();
  }
  std::string loss() override;

  void begin_capture() override;
  void end_capture() override;
  void replay() override;

 protected:
  std::unique_ptr<ProcessGroup> make_group(const Rank& rank) override;

 private:
  int index_;
  Choices choices_;
  std::size_t max_shared_bytes_;
  Memory memory_;
  Stream stream_;
  Copies copies_{stream_};
  Notes notes_;
  std::unique_ptr<CublasLtProducts> cublaslt_products_;
  std::unique_ptr<CudnnAttention> cudnn_attention_;
  cudaGraphExec_t graph_ = nullptr;  // of the last capture
  bool is_capturing_ = false;
  std::size_t num_captured_notes_ = 0;
};

}  // namespace mst::cuda
