// The memory of a GPU, through CUDA's virtual memory management.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "../runtime/memory.h"
#include "libraries/driver.h"

namespace mst::cuda {

class Memory final : public mst::Memory {
 public:
  // For device `index`, which must be current and have its CUDA context.
  explicit Memory(int index);
  ~Memory() override;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::size_t granularity() const override {
    return granularity_;
  }
  char* reserve(std::size_t bytes) override;
  void map(char* begin, std::size_t bytes) override;
  void unmap(char* begin, std::size_t bytes) override;
  std::size_t available_bytes() const override;
  char* allocate_host(std::size_t bytes) override;
  void free_host(char* begin) override;

 private:
  struct Piece {
    CUmemGenericAllocationHandle handle;
    std::size_t bytes;
  };

  int index_;
  CUmemAllocationProp properties_{};
  std::size_t granularity_ = 0;
  std::mutex mutex_;  // guards what follows
  std::vector<std::pair<CUdeviceptr, std::size_t>> reserved_;
  std::map<CUdeviceptr, Piece> pieces_;  // by address, as map() made them
  std::map<char*, std::size_t> host_;    // bytes of what allocate_host() has mapped and pinned; 0: of cudaHostAlloc
};

}  // namespace mst::cuda
