// Clusters of blocks (sm_90 and newer): the blocks of a cluster run at the same time, and read and write each other's dynamic shared
// memory. Before sm_90 each block is a cluster of its own.
#pragma once

#include <cstring>

#include "launch.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MST_WITHOUT_CLUSTERS
#endif

namespace mst::cuda {

__device__ inline int cluster_rank() {
#ifdef MST_WITHOUT_CLUSTERS
  return 0;
#else
  return static_cast<int>(__clusterRelativeBlockRank());
#endif
}

__device__ inline int cluster_size() {
#ifdef MST_WITHOUT_CLUSTERS
  return 1;
#else
  return static_cast<int>(__clusterSizeInBlocks());
#endif
}

// A barrier for all threads of the cluster. Afterwards each sees what the others wrote to shared memory before it. The first call also
// makes sure that all blocks have started: before that none may write to another's memory.
__device__ inline void synchronize_cluster() {
#ifdef MST_WITHOUT_CLUSTERS
  __syncthreads();
#else
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

// Exchanges one value per warp among all warps of the cluster, round after round. It waits for these values only: a barrier of the cluster
// would also wait for earlier stores to global memory.
template <class T>
class Board {
 public:
  // Bytes of dynamic shared memory that it needs, for blocks of num_warps warps.
  static constexpr std::size_t bytes(std::size_t cluster_size, std::size_t num_warps) {
    return 2 * sizeof(std::uint64_t) + 2 * cluster_size * num_warps * sizeof(T);
  }

  // All threads of the cluster must call it. memory: at least bytes() of dynamic shared memory.
  __device__ explicit Board(std::uint64_t* memory) : arrivals_(memory), values_(reinterpret_cast<T*>(memory + 2)) {
#if defined(__CUDACC__) && !defined(MST_WITHOUT_CLUSTERS)
    if (threadIdx.x == 0) {
      for (int i = 0; i < 2; ++i) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(arrivals_ + i)));
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
#endif
    synchronize_cluster();
  }

  __device__ int size() const {
    return cluster_size() * static_cast<int>(blockDim.x / 32);
  }

  // All threads of the cluster must call it, with one value per warp. Returns the size() values, which stay valid until the call after the
  // next.
  __device__ const T* exchange(const T& of_warp) {
    const int turn = round_ % 2;
    T* const values = values_ + turn * size();
    post(values + (cluster_rank() * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) / 32, of_warp, turn);
    ++round_;
    return values;
  }

 private:
  __device__ void post(T* mine, const T& of_warp, int turn) {
    const int lane = threadIdx.x % 32;
#ifndef __CUDACC__
    (void)turn;
    if (lane < cluster_size()) *static_cast<T*>(__cluster_map_shared_rank(mine, lane)) = of_warp;
    synchronize_cluster();
#else
#ifndef MST_WITHOUT_CLUSTERS
    if (cluster_size() > 1) return send(mine, of_warp, lane, turn);  // st.async needs another block
#endif
    if (lane == 0) *mine = of_warp;
    __syncthreads();
#endif
  }

#if defined(__CUDACC__) && !defined(MST_WITHOUT_CLUSTERS)
  __device__ void send(T* mine, const T& of_warp, int lane, int turn) {
    static_assert(sizeof(T) % 8 == 0);
    const unsigned arrival = shared_address(arrivals_ + turn);
    if (threadIdx.x == 0)
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(arrival), "r"(size() * static_cast<int>(sizeof(T)))
                   : "memory");
    if (lane < cluster_size()) {
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

  std::uint64_t* arrivals_;  // barriers that count the bytes of a round; rounds use the two in turn
  T* values_;                // one value per warp of the cluster, twice
  int round_ = 0;
};

}  // namespace mst::cuda
