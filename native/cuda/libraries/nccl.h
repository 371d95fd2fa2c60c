// NCCL, loaded from where the user has it. The declarations are our own (checked against the headers of 2.18 to 2.30).
#pragma once

#include <cstddef>

#include "../common/check.h"
#include "library.h"

namespace mst::cuda {

struct NcclUniqueId {
  char bytes[128];
};

// Functions return a status, 0 for success. A communicator is a pointer.
struct Nccl {
  int (*get_version)(int* version);
  const char* (*error_text)(int status);
  const char* (*last_error)(void* communicator);
  int (*get_unique_id)(NcclUniqueId* id);
  int (*init_rank)(void** communicator, int size, NcclUniqueId id, int rank);
  int (*destroy)(void* communicator);
  int (*abort)(void* communicator);
  int (*all_reduce)(const void* from, void* to, std::size_t count, int dtype, int op, void* communicator, cudaStream_t stream);
  int (*group_start)();
  int (*group_end)();
  int (*send)(const void* from, std::size_t count, int dtype, int rank, void* communicator, cudaStream_t stream);
  int (*receive)(void* to, std::size_t count, int dtype, int rank, void* communicator, cudaStream_t stream);
  int (*reduce_scatter)(const void* from, void* to, std::size_t count, int dtype, int op, void* communicator, cudaStream_t stream);
  int (*all_gather)(const void* from, void* to, std::size_t count, int dtype, void* communicator, cudaStream_t stream);
  int (*reduce)(const void* from, void* to, std::size_t count, int dtype, int op, int root, void* communicator, cudaStream_t stream);
  int (*broadcast)(const void* from, void* to, std::size_t count, int dtype, int root, void* communicator, cudaStream_t stream);

  static constexpr int f32 = 7, f64 = 8, bf16 = 9;  // dtypes
  static constexpr int sum = 0;                     // an op

  std::size_t version() const {
    int number = 0;
    return get_version(&number) == 0 ? static_cast<std::size_t>(number) : 0;
  }
};

// Never throws. problem lists what was tried, and what helps.
LibrarySearch find_nccl();

// The functions. Throws where find_nccl() has a problem.
const Nccl& nccl();

}  // namespace mst::cuda
