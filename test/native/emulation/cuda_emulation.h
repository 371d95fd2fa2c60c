// CUDA C++ for the host compiler: what native/ops/*.cu use of it, run on the CPU, so that kernels are tested without a GPU.
//
// Blocks run one after another, those of a cluster together; threads are fibers that take turns: each runs until it waits, at
// __syncthreads for its block, at __cluster_barrier_wait for its cluster or in a warp function for its warp. A warp goes as far as it can
// before the next one starts. `options.reversed` begins with the last block, warp and lane. Of two accesses that no barrier orders each
// comes first in one of the two orders, so that a missing barrier shows in one of them. Dynamic shared memory begins as NaN. When nobody
// can go on, launch() throws and says who waits where.
// Not seen: races between blocks, the memory model, static shared memory that nobody has written or that blocks of a cluster share here.
#pragma once

#include <math.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cpu/context.h"
#include "cuda/common/status.h"
#include "runtime/dtype.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__
#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::emulation::dynamic_shared())
#define threadIdx (::emulation::thread_index())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 gridDim, blockDim, blockIdx;
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulation {

struct Options {
  bool reversed = false;
  std::size_t shared_bytes = 99 << 10;  // that a block may have: as much as every GPU from sm_80 on gives
  unsigned cluster_size = 8;            // blocks that a cluster may have; 1 before sm_90
};
inline Options options;

using Where = std::source_location;

const dim3& thread_index();
void* dynamic_shared();
void synchronize_block(const Where& where);
void synchronize_cluster(const Where& where);
unsigned cluster_rank();
unsigned cluster_size();
// What the block `rank` of the cluster has where this block has `mine`, in dynamic shared memory.
void* in_block(const void* mine, unsigned rank);
// Gives `bytes` bytes at `mine` to the warp and returns, when all lanes of `mask` have called, those of lane `source`.
const void* exchange(unsigned mask, const void* mine, std::size_t bytes, int source, const Where& where);
// What a lane of the warp gave in the exchange that the caller has just been through.
const void* given_by(int lane);
int lane();

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, unsigned cluster_size, const std::function<void()>& kernel);

}  // namespace emulation

inline void __syncthreads(const emulation::Where& where = emulation::Where::current()) {
  emulation::synchronize_block(where);
}
inline unsigned __clusterRelativeBlockRank() {
  return emulation::cluster_rank();
}
inline unsigned __clusterSizeInBlocks() {
  return emulation::cluster_size();
}
inline void __cluster_barrier_arrive() {}  // with the wait that follows
inline void __cluster_barrier_wait(const emulation::Where& where = emulation::Where::current()) {
  emulation::synchronize_cluster(where);
}
inline void* __cluster_map_shared_rank(const void* mine, unsigned rank) {
  return emulation::in_block(mine, rank);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, const emulation::Where& where = emulation::Where::current()) {
  T result;
  std::memcpy(&result, emulation::exchange(mask, &value, sizeof value, source, where), sizeof result);
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int offset, const emulation::Where& where = emulation::Where::current()) {
  return __shfl_sync(mask, value, emulation::lane() ^ offset, where);
}

inline unsigned __ballot_sync(unsigned mask, bool predicate, const emulation::Where& where = emulation::Where::current()) {
  emulation::exchange(mask, &predicate, sizeof predicate, emulation::lane(), where);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    bool of_lane = false;
    if (mask >> lane & 1) std::memcpy(&of_lane, emulation::given_by(lane), sizeof of_lane);
    ballot |= unsigned{of_lane} << lane;
  }
  return ballot;
}
inline int __popc(unsigned bits) {
  return std::popcount(bits);
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

inline float __fdividef(float dividend, float divisor) {
  return dividend / divisor;
}

inline unsigned long long atomicCAS(unsigned long long* address, unsigned long long compare, unsigned long long value) {
  const unsigned long long old = *address;
  if (old == compare) *address = value;
  return old;
}

inline std::uint32_t __float_as_uint(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
template <class T>
void __stwb(T* to, const T& value) {
  *to = value;
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(sin(M_PI * double(x)));
  *cosine = static_cast<float>(cos(M_PI * double(x)));
}

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) {
  mst::bf16 same;
  same.bits = value.bits;
  return same;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return {mst::bf16(value).bits};
}

inline float __uint_as_float(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

namespace emulation {

// Tensor-core products and asynchronous copies, for cuda/mma.h.
void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Where& where);
void load_matrices(std::uint32_t (&r)[4], const __nv_bfloat16* row, bool is_transposed, const Where& where);
// Copies wait for wait_for_copies(), as late as a GPU may finish them.
void copy_async(void* to, const void* from, int bytes, const Where& where);
void commit_copies();
void wait_for_copies(int pending);

}  // namespace emulation

namespace mst::cuda {

// The device of emulated kernels: the host, and its products.
class Context final : public cpu::Context {
 public:
  explicit Context(int num_threads) : cpu::Context({Device::cuda, 0}, num_threads) {}

  long long* status_words() {
    return status_words_.data();
  }
  std::size_t max_shared_bytes() const {
    return emulation::options.shared_bytes;
  }

 private:
  std::array<long long, num_status_words> status_words_{};
};

template <class... Parameters, class... Arguments>
void launch_clusters(Context&, void (*kernel)(Parameters...), unsigned cluster_size, dim3 grid, dim3 block, std::size_t shared_bytes,
                     Arguments&&... arguments) {
  const std::tuple<Parameters...> values{static_cast<Parameters>(arguments)...};
  emulation::run_grid(grid, block, shared_bytes, cluster_size, [&] { std::apply(kernel, values); });
}

template <class... Parameters>
unsigned max_cluster_size(void (*)(Parameters...)) {
  return emulation::options.cluster_size;
}

}  // namespace mst::cuda
