// Blocks of a cluster (sm_90 and newer), which run at the same time and read and write each other's dynamic shared memory. Before sm_90 a
// block is a cluster of its own.
#pragma once

#include "launch.h"

namespace mst::cuda {

__device__ inline unsigned cluster_rank() {
#ifndef __CUDACC__
  return emulation::cluster_rank();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return 0;
#endif
}

__device__ inline unsigned cluster_size() {
#ifndef __CUDACC__
  return emulation::cluster_size();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  unsigned size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
#else
  return 1;
#endif
}

// What every thread of the cluster wrote before, to its own block's shared memory or another's, all of them see afterwards. The first call
// also makes sure that all blocks have begun: only then may one write to another's memory.
__device__ inline void synchronize_cluster() {
#ifndef __CUDACC__
  emulation::synchronize_cluster(emulation::Where::current());
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
#else
  __syncthreads();
#endif
}

// Where the block `rank` has what this block has at `mine`, in dynamic shared memory.
template <class T>
__device__ inline T* in_block(T* mine, unsigned rank) {
#ifndef __CUDACC__
  return static_cast<T*>(emulation::in_block(mine, rank));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  std::uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<std::uint64_t>(mine)), "r"(rank));
  return reinterpret_cast<T*>(address);
#else
  return mine;
#endif
}

}  // namespace mst::cuda
