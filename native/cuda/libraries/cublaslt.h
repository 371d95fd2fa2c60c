// cuBLASLt, loaded at run time from where the user has it; this package does not contain it. The declarations are our own: opaque pointers,
// and the two structures whose size is fixed (checked against the headers of CUDA 11.4 to 13.2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/check.h"
#include "library.h"

namespace mst::cuda {

struct CublasLtAlgorithm {
  std::uint64_t data[8];
};
struct CublasLtHeuristic {
  CublasLtAlgorithm algorithm;
  std::size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(CublasLtAlgorithm) == 64 && sizeof(CublasLtHeuristic) == 96);

// Functions return a status, 0 for success. The library makes all handles and descriptors, since their sizes change between versions.
struct CublasLt {
  std::size_t (*version)();
  const char* (*status_text)(int);
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*matmul_desc_create)(void** desc, int compute_type, int scale_type);
  int (*matmul_desc_set)(void* desc, int attribute, const void* value, std::size_t bytes);
  int (*matmul_desc_destroy)(void* desc);
  int (*layout_create)(void** layout, int data_type, std::uint64_t rows, std::uint64_t cols, std::int64_t leading);
  int (*layout_destroy)(void* layout);
  int (*preference_create)(void** preference);
  int (*preference_set)(void* preference, int attribute, const void* value, std::size_t bytes);
  int (*preference_destroy)(void* preference);
  int (*heuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference, int requested,
                   CublasLtHeuristic* results, int* returned);
  int (*matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout, const void* beta,
                const void* c, void* c_layout, void* d, void* d_layout, const CublasLtAlgorithm* algorithm, void* workspace,
                std::size_t workspace_bytes, cudaStream_t stream);
};

// Never throws. `problem` lists what was tried and what helps.
LibrarySearch find_cublaslt();

// The functions. Throws if find_cublaslt() has a problem.
const CublasLt& cublaslt();

}  // namespace mst::cuda
