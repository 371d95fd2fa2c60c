// What a .cu file includes: CUDA under nvcc, and in the native tests an emulation that runs the same source on the CPU.
// Beyond CUDA C++ a .cu file uses
//   launch(context, kernel, grid, block, shared_bytes, arguments...)   instead of kernel<<<…>>>(…)
//   DYNAMIC_SHARED(type, name)                                         declares type* name, the block's dynamic shared memory
#pragma once

#include "../../runtime/tensor.h"
#include "status.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <utility>

#include "../context.h"
#include "check.h"

#define DYNAMIC_SHARED(type, name)                                       \
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared_memory)

namespace mst::cuda {

// Launches a kernel in clusters of `cluster_size` consecutive blocks along x; see cluster.h.
template <class... Parameters, class... Arguments>
void launch_clusters(Context& context, void (*kernel)(Parameters...), unsigned cluster_size, dim3 grid, dim3 block,
                     std::size_t shared_bytes, Arguments&&... arguments) {
  constexpr std::size_t always_given = 32 << 10;  // more needs the attribute: the limit is 48 KiB, static shared memory included
  if (shared_bytes > always_given)
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream();
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {cluster_size, 1, 1};
  config.attrs = &cluster;
  config.numAttrs = cluster_size > 1 ? 1 : 0;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

// The largest cluster size of the kernel: 8 if its code for the current device was compiled for sm_90 or newer, else 1. A newer device may
// run code compiled from PTX of an older architecture, which knows no clusters.
template <class... Parameters>
unsigned max_cluster_size(void (*kernel)(Parameters...)) {
  constexpr int hopper = 90;
  cudaFuncAttributes attributes{};
  CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.ptxVersion < hopper ? 1 : 8;
}

}  // namespace mst::cuda

#else
#include "emulation/cuda_emulation.h"
#endif

namespace mst::cuda {

template <class... Parameters, class... Arguments>
void launch(Context& context, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Arguments&&... arguments) {
  launch_clusters(context, kernel, 1, grid, block, shared_bytes, std::forward<Arguments>(arguments)...);
}

// For CUDA ops: calls function(type_tag<T>{}) with the C++ type of a floating dtype, f32 or bf16.
template <class Function>
void with_cuda_float(const char* op, Dtype dtype, Function&& function) {
  switch (dtype) {
    case Dtype::f32:
      return function(type_tag<float>{});
    case Dtype::bf16:
      return function(type_tag<__nv_bfloat16>{});
    default:
      MST_FAIL(op, ": on CUDA the dtype must be float32 or bfloat16, got ", name_of(dtype));
  }
}

// The number of blocks for n items, `per_block` of them each, at most max_blocks. Kernels loop over the rest (grid-stride loops).
inline unsigned grid_for(std::int64_t n, std::int64_t per_block, std::int64_t max_blocks = 132 * 16) {
  const std::int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < max_blocks ? blocks : max_blocks);
}

// ---- In kernels

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
template <class T>
__device__ inline T from_float(float value) {
  if constexpr (sizeof(T) == 2)
    return __float2bfloat16_rn(value);
  else
    return value;
}

// Two f32 as bf16 in one register; `low` is in its low half.
__device__ inline std::uint32_t pack(float low, float high) {
#ifdef __CUDACC__
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
#else
  return __float2bfloat16_rn(low).bits | std::uint32_t(__float2bfloat16_rn(high).bits) << 16;
#endif
}

// The maximum of each of two pairs of bf16, packed in registers.
__device__ inline std::uint32_t packed_maximum(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDACC__
  std::uint32_t larger;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  return larger;
#else
  const auto low = [](std::uint32_t words) { return __uint_as_float(words << 16); };
  const auto high = [](std::uint32_t words) { return __uint_as_float(words & 0xffff0000u); };
  return pack(fmaxf(low(a), low(b)), fmaxf(high(a), high(b)));
#endif
}

// The thread's index in the grid, and the number of threads in the grid. Both count along x only.
__device__ inline std::int64_t grid_thread() {
  return std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t grid_threads() {
  return std::int64_t(gridDim.x) * blockDim.x;
}

// Records an id that is out of range, unless the words hold one already.
__device__ inline void note_status(long long* words, long long what, long long row, long long id, long long V) {
  if (atomicCAS(reinterpret_cast<unsigned long long*>(words), 0ull, static_cast<unsigned long long>(what)) != 0ull) return;
  words[1] = row;
  words[2] = id;
  words[3] = V;
}

}  // namespace mst::cuda
