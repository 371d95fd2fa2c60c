// See memory.h.
#include "memory.h"

#include "../cpu/host_pages.h"
#include "common/check.h"

namespace mst::cuda {
namespace {

void check(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  const char* text = "unknown error";
  driver().get_error_string(status, &text);
  if (status == CUDA_ERROR_OUT_OF_MEMORY) throw OutOfMemory(message_of("cuda: ", call, ": ", text));
  MST_FAIL("cuda: ", call, ": ", text);
}

// Frees host memory: pages of this process, or, with mapped_bytes 0, of cudaHostAlloc.
cudaError_t release_host(char* begin, std::size_t mapped_bytes) {
  if (mapped_bytes == 0) return cudaFreeHost(begin);
  const cudaError_t status = cudaHostUnregister(begin);
  cpu::unmap_host(begin, mapped_bytes);
  return status;
}

}  // namespace

Memory::Memory(int index) : index_(index) {
  properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties_.location = {CU_MEM_LOCATION_TYPE_DEVICE, index};
  check(driver().mem_get_allocation_granularity(&granularity_, &properties_, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
        "cuMemGetAllocationGranularity");
}

Memory::~Memory() {
  for (const auto& [begin, piece] : pieces_) {
    driver().mem_unmap(begin, piece.bytes);
    driver().mem_release(piece.handle);
  }
  for (const auto& [base, bytes] : reserved_) driver().mem_address_free(base, bytes);
  for (const auto& [begin, bytes] : host_) release_host(begin, bytes);
}

char* Memory::reserve(std::size_t bytes) {
  CUDA_CHECK(cudaSetDevice(index_));
  CUdeviceptr base = 0;
  check(driver().mem_address_reserve(&base, bytes, 0, 0, 0), "cuMemAddressReserve");
  const std::lock_guard lock(mutex_);
  reserved_.emplace_back(base, bytes);
  return reinterpret_cast<char*>(base);
}

void Memory::map(char* begin, std::size_t bytes) {
  CUDA_CHECK(cudaSetDevice(index_));
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
  const std::lock_guard lock(mutex_);
  pieces_[address] = piece;
}

void Memory::unmap(char* begin, std::size_t bytes) {
  const auto first = reinterpret_cast<CUdeviceptr>(begin);
  const std::lock_guard lock(mutex_);
  for (auto piece = pieces_.lower_bound(first); piece != pieces_.end() && piece->first < first + bytes; piece = pieces_.erase(piece)) {
    check(driver().mem_unmap(piece->first, piece->second.bytes), "cuMemUnmap");
    check(driver().mem_release(piece->second.handle), "cuMemRelease");
  }
}

std::size_t Memory::available_bytes() const {
  CUDA_CHECK(cudaSetDevice(index_));
  std::size_t free_bytes = 0, total_bytes = 0;
  CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  return free_bytes;
}

// Pages that are there already are pinned fast. cudaHostAlloc, which provides and pins them by one thread, serves where a system does not
// allow to pin a process's own pages.
char* Memory::allocate_host(std::size_t bytes) {
  CUDA_CHECK(cudaSetDevice(index_));
  char* begin = cpu::map_host(bytes);
  cpu::touch_host(begin, bytes);
  cudaError_t status = cudaHostRegister(begin, bytes, cudaHostRegisterDefault);
  std::size_t mapped_bytes = bytes;
  if (status != cudaSuccess) {
    cudaGetLastError();  // reported below; the next call must not see it
    cpu::unmap_host(begin, bytes);
    mapped_bytes = 0;
    void* allocated = nullptr;
    if (status != cudaErrorMemoryAllocation) status = cudaHostAlloc(&allocated, bytes, cudaHostAllocDefault);
    begin = static_cast<char*>(allocated);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(message_of("cuda: ", bytes, " bytes could not be pinned: ", cudaGetErrorString(status)));
  }
  CUDA_CHECK(status);
  const std::lock_guard lock(mutex_);
  host_.emplace(begin, mapped_bytes);
  return begin;
}

void Memory::free_host(char* begin) {
  const std::lock_guard lock(mutex_);
  const auto found = host_.find(begin);
  MST_CHECK(found != host_.end(), "cuda: no host memory begins at ", static_cast<void*>(begin));
  const cudaError_t status = release_host(found->first, found->second);
  host_.erase(found);
  CUDA_CHECK(status);
}

}  // namespace mst::cuda
