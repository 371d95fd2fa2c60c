// The emulation itself: what it must notice.
#include "emulation/cuda_emulation.h"

#include "cuda/common/cluster.h"
#include "cuda/common/reduce.h"
#include "support.h"

namespace mst::test {
namespace {

void divergent_barrier(int* out) {
  if (threadIdx.x < 5) __syncthreads();
  out[threadIdx.x] = 1;
}

void half_a_warp_shuffles(float* out) {
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

void mask_without_its_source(float* out) {
  out[threadIdx.x] = __shfl_xor_sync(1u << threadIdx.x % 32, 1.0f, 1);
}

// Passes a value to the next thread through shared memory, with or without the barrier that this takes.
template <bool with_barrier>
void neighbours(float* out) {
  DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

void sums(float* out) {
  out[threadIdx.x] = cuda::block_sum(static_cast<float>(threadIdx.x));
}

// Passes each block's index to the next block of its cluster, with or without the barrier that this takes.
template <bool with_barrier>
void neighbour_blocks(float* out) {
  DYNAMIC_SHARED(float, shared);
  const int next = (cuda::cluster_rank() + 1) % cuda::cluster_size();
  static_cast<float*>(__cluster_map_shared_rank(shared, next))[threadIdx.x] = static_cast<float>(blockIdx.x);
  if (with_barrier) cuda::synchronize_cluster();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
}

void one_block_never_waits(float*) {
  if (cuda::cluster_rank() == 0) cuda::synchronize_cluster();
}

TEST(Emulation, BlocksOfAClusterSeeEachOther) {
  constexpr unsigned cluster_size = 4, num_blocks = 8, threads = 40;
  for (const bool reversed : {false, true}) {
    emulation::options.reversed = reversed;
    std::vector<float> found(num_blocks * threads);
    cuda::launch_clusters(cuda_context(), neighbour_blocks<true>, cluster_size, num_blocks, threads, threads * sizeof(float), found.data());
    for (unsigned i = 0; i < found.size(); ++i) {
      const unsigned block = i / threads, first = block / cluster_size * cluster_size;
      EXPECT_EQ(found[i], first + (block + cluster_size - 1) % cluster_size);
    }
    cuda::launch_clusters(cuda_context(), neighbour_blocks<false>, cluster_size, num_blocks, threads, threads * sizeof(float),
                          found.data());
    EXPECT_TRUE(std::isnan(found[reversed ? found.size() - 1 : 0]));
  }
  emulation::options.reversed = false;
}

TEST(Emulation, ReportsBarriersAndWarpsThatNeverComplete) {
  std::vector<int> ints(64);
  std::vector<float> floats(64);
  EXPECT_THROW(cuda::launch(cuda_context(), divergent_barrier, 1, 64, 0, ints.data()), Error);
  EXPECT_THROW(cuda::launch(cuda_context(), half_a_warp_shuffles, 1, 64, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch(cuda_context(), mask_without_its_source, 1, 64, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch_clusters(cuda_context(), one_block_never_waits, 2, 2, 64, 0, floats.data()), Error);
  cuda::launch(cuda_context(), sums, 1, 64, 0, floats.data());  // and goes on
  EXPECT_EQ(floats[3], 64 * 63 / 2);
}

TEST(Emulation, RefusesLaunchesThatAGpuRefuses) {
  std::vector<float> floats(2048);
  EXPECT_THROW(cuda::launch(cuda_context(), sums, 0, 64, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch(cuda_context(), sums, dim3(1, 65536), 64, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch(cuda_context(), sums, 1, 2048, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch(cuda_context(), sums, 1, 64, 100 << 10, floats.data()), Error);
  EXPECT_THROW(cuda::launch_clusters(cuda_context(), sums, 2, 3, 64, 0, floats.data()), Error);
  EXPECT_THROW(cuda::launch_clusters(cuda_context(), sums, 16, 16, 64, 0, floats.data()), Error);
}

TEST(Emulation, ShowsAMissingBarrierInOneOfTheTwoOrders) {
  for (const bool reversed : {false, true}) {
    emulation::options.reversed = reversed;
    std::vector<float> found(96);
    cuda::launch(cuda_context(), neighbours<true>, 1, 96, 96 * sizeof(float), found.data());
    for (int i = 0; i < 96; ++i) EXPECT_EQ(found[i], (i + 1) % 96);
    cuda::launch(cuda_context(), neighbours<false>, 1, 96, 96 * sizeof(float), found.data());
    EXPECT_TRUE(std::isnan(found[reversed ? 95 : 0]));
  }
  emulation::options.reversed = false;
}

TEST(Emulation, BlockReductionsAgreeInAllThreads) {
  for (const int size : {32, 64, 512, 1024}) {
    std::vector<float> found(size);
    cuda::launch(cuda_context(), sums, 1, size, 0, found.data());
    for (const float value : found) EXPECT_EQ(value, static_cast<float>(size) * static_cast<float>(size - 1) / 2);
  }
}

}  // namespace
}  // namespace mst::test
