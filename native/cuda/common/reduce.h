// Sums and maxima over a warp and sums over a block, in a fixed order.
#pragma once

#include "launch.h"

namespace mst::cuda {

struct Sum {
  template <class S>
  __device__ static S combine(S a, S b) {
    return a + b;
  }
};
struct Max {
  template <class S>
  __device__ static S combine(S a, S b) {
    return a > b ? a : b;
  }
};

// Reduces over each group of `lanes` neighbouring lanes, a power of two; every lane gets the result. The lanes of a group must call it
// together.
template <class Operation, int lanes = 32, class S>
__device__ inline S warp_reduce(S value) {
  unsigned mask = 0xffffffffu;
  if constexpr (lanes < 32) mask = ((1u << lanes) - 1) << (threadIdx.x % 32 / lanes * lanes);
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) value = Operation::combine(value, __shfl_xor_sync(mask, value, offset));
  return value;
}

// Replaces each of n values by its sum over the block, in every thread, with no more barriers than for one value. All threads of the block
// must call it. A block must be whole warps, at most 32.
template <class S, int n>
__device__ inline void block_sums(S (&values)[n]) {
  __shared__ S of_warps[32][n];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, num_warps = blockDim.x / 32;
#pragma unroll
  for (S& value : values) value = warp_reduce<Sum>(value);
  __syncthreads();  // the results of an earlier call may still be read
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < n; ++i) of_warps[warp][i] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; ++i) values[i] = warp_reduce<Sum>(lane < num_warps ? of_warps[lane][i] : S(0));
}

template <class S>
__device__ inline S block_sum(S value) {
  S values[1] = {value};
  block_sums(values);
  return values[0];
}

}  // namespace mst::cuda
