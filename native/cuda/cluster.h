// Blocks of a cluster (sm_90 and newer), which run at the same time and read and write each other's dynamic shared memory. Before sm_90 a
// block is a cluster of its own.
#pragma once

#include <cstring>

#include "launch.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define MST_HAS_CLUSTERS
#endif

namespace mst::cuda {

__device__ inline unsigned cluster_rank() {
#ifndef __CUDACC__
  return emulation::cluster_rank();
#elif defined(MST_HAS_CLUSTERS)
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
#elif defined(MST_HAS_CLUSTERS)
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
#elif defined(MST_HAS_CLUSTERS)
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
#elif defined(MST_HAS_CLUSTERS)
  std::uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<std::uint64_t>(mine)), "r"(rank));
  return reinterpret_cast<T*>(address);
#else
  return mine;
#endif
}

// What every warp of the cluster tells all the others, round after round. Nothing else is waited for: a barrier of the cluster would wait
// for earlier stores to global memory too.
template <class T>
class Board {
 public:
  // Bytes of dynamic shared memory, for blocks of that many warps.
  static constexpr std::size_t bytes(std::size_t cluster_size, std::size_t num_warps) {
    return 2 * sizeof(std::uint64_t) + 2 * cluster_size * num_warps * sizeof(T);
  }

  // All threads of the cluster call it. `memory`: at least bytes() of dynamic shared memory.
  __device__ explicit Board(std::uint64_t* memory) : arrivals_(memory), values_(reinterpret_cast<T*>(memory + 2)) {
#ifdef MST_HAS_CLUSTERS
    if (threadIdx.x == 0) {
      for (int i = 0; i < 2; ++i) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(arrivals_ + i)));
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
#endif
    synchronize_cluster();
  }

  __device__ int size() const {
    return static_cast<int>(cluster_size() * blockDim.x / 32);
  }

  // All threads of the cluster call it, with one value a warp. Returns size() of them, which stay until the next but one call.
  __device__ const T* exchange(const T& of_warp) {
    const int turn = round_ % 2;
    T* const values = values_ + turn * size();
    post(values + (cluster_rank() * blockDim.x + threadIdx.x) / 32, of_warp, turn);
    ++round_;
    return values;
  }

 private:
#ifndef MST_HAS_CLUSTERS
  __device__ void post(T* mine, const T& of_warp, int) {
    const int lane = threadIdx.x % 32;
    if (lane < static_cast<int>(cluster_size())) *in_block(mine, lane) = of_warp;
    synchronize_cluster();
  }
#else
  __device__ void post(T* mine, const T& of_warp, int turn) {
    const int lane = threadIdx.x % 32, num_blocks = static_cast<int>(cluster_size());
    if (num_blocks == 1) {  // stores that signal their arrival need another block
      if (lane == 0) *mine = of_warp;
      return __syncthreads();
    }
    static_assert(sizeof(T) % 8 == 0);
    const unsigned arrival = shared_address(arrivals_ + turn);
    if (threadIdx.x == 0)
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(arrival), "r"(size() * static_cast<int>(sizeof(T)))
                   : "memory");
    if (lane < num_blocks) {
      std::uint64_t words[sizeof(T) / 8];
      std::memcpy(words, &of_warp, sizeof(T));
      const unsigned to = in_block_address(shared_address(mine), lane), signal = in_block_address(arrival, lane);
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(T) / 8); ++i)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(to + 8 * i), "l"(words[i]),
                     "r"(signal)
                     : "memory");
    }
    asm volatile(
        "{\n"
        ".reg .pred arrived;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 arrived, [%0], %1;\n"
        "@!arrived bra again;\n"
        "}" ::"r"(arrival),
        "r"(round_ / 2 % 2)
        : "memory");
  }
  __device__ static unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
  }
  __device__ static unsigned in_block_address(unsigned mine, int rank) {
    unsigned address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(mine), "r"(rank));
    return address;
  }
#endif

  std::uint64_t* arrivals_;  // barriers of the rounds' bytes, two in turn
  T* values_;                // of every warp of the cluster, twice
  int round_ = 0;
};

}  // namespace mst::cuda
