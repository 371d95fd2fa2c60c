// Adds partial sums, each written by a block for its part of the rows, to a gradient.
#pragma once

#include "launch.h"

namespace mst::cuda {

constexpr int partial_warps = 8;

// A block adds 32 columns: each warp takes every eighth row, then the sums of the warps are added in order.
template <class G>
__global__ void add_partials_kernel(const float* partials, G* to, std::int64_t P, std::int64_t C) {
  __shared__ float of_warps[partial_warps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t c = std::int64_t(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (c < C)
#pragma unroll 8
    for (std::int64_t p = warp; p < P; p += partial_warps) sum += partials[p * C + c];
  of_warps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= C) return;
  for (int i = 1; i < partial_warps; ++i) sum += of_warps[i][lane];
  to[c] = from_float<G>(to_float(to[c]) + sum);
}

// to (C,) += Σ over P of partials (P,C) f32, in a fixed order. A bf16 `to` is rounded once.
inline void add_partials(Context& context, const char* op, const Tensor& partials, const Tensor& to) {
  with_cuda_float(op, to.dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    launch(context, add_partials_kernel<G>, static_cast<unsigned>((to.size() + 31) / 32), 32 * partial_warps, 0, partials.as<const float>(),
           to.as<G>(), partials.rows(), to.size());
  });
}

}  // namespace mst::cuda
