// Attention of new tokens to kept keys and values; see cached_attention.h. A block for each query of each head; warp w of W takes keys w, w
// + W, ….
#include "cached_attention.h"

#include "../cuda/common/reduce.h"
#include "attention_heads.h"

namespace mst::cuda {
namespace {

constexpr int warp_size = 32, num_warps = 8, max_head_size = max_cached_head_size, max_owned = max_head_size / warp_size;

template <class T>
__global__ void cached_attention_kernel(Heads<const T> q, Heads<const T> k, Heads<const T> v, Heads<T> out, std::int64_t position,
                                        Geometry g) {
  const std::int64_t n = blockIdx.x, h = blockIdx.y, p = position + n, group = h / (g.H / g.G), D = g.D;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int owned = static_cast<int>((D + warp_size - 1) / warp_size);  // a lane owns elements lane, lane + 32, … of a head
  float query[max_owned], sum[max_owned];
#pragma unroll
  for (int i = 0; i < max_owned; ++i) {
    const std::int64_t d = lane + std::int64_t(i) * warp_size;
    query[i] = i < owned && d < D ? to_float(q.row(n, h, D)[d]) : 0.0f;
    sum[i] = 0;
  }
  float max = -INFINITY, total = 0;
  for (std::int64_t s = g.first_key(p) + warp; s <= p; s += num_warps) {
    float product = 0;
#pragma unroll
    for (int i = 0; i < max_owned; ++i) {
      const std::int64_t d = lane + std::int64_t(i) * warp_size;
      if (i < owned && d < D) product += query[i] * to_float(k.row(s, group, D)[d]);
    }
    float score = warp_reduce<Sum>(product) * g.scale;
    if (g.softcap > 0) score = g.softcap * tanhf(score / g.softcap);
    const float new_max = fmaxf(max, score), old_factor = expf(max - new_max), factor = expf(score - new_max);
    total = total * old_factor + factor;
    max = new_max;
#pragma unroll
    for (int i = 0; i < max_owned; ++i) {
      const std::int64_t d = lane + std::int64_t(i) * warp_size;
      if (i < owned && d < D) sum[i] = sum[i] * old_factor + factor * to_float(v.row(s, group, D)[d]);
    }
  }
  // The parts of the warps are added in the order of the warps.
  __shared__ float maxima[num_warps], totals[num_warps], sums[num_warps][max_head_size];
  if (lane == 0) {
    maxima[warp] = max;
    totals[warp] = total;
  }
#pragma unroll
  for (int i = 0; i < max_owned; ++i) {
    const int d = lane + i * warp_size;
    if (i < owned && d < D) sums[warp][d] = sum[i];
  }
  __syncthreads();
  float whole_max = maxima[0];
  for (int w = 1; w < num_warps; ++w) whole_max = fmaxf(whole_max, maxima[w]);
  float whole_total = 0;
  for (int w = 0; w < num_warps; ++w) whole_total += totals[w] * expf(maxima[w] - whole_max);
  for (std::int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    float value = 0;
    for (int w = 0; w < num_warps; ++w) value += sums[w][d] * expf(maxima[w] - whole_max);
    out.row(n, h, D)[d] = from_float<T>(value / whole_total);
  }
}

}  // namespace

void cached_attention(Context& context, const AttentionInputs& inputs, const Tensor& out, std::int64_t position,
                      const AttentionOptions& options) {
  const Geometry g{check_cached_attention(inputs, out, position, options), float(options.scale), float(options.softcap)};
  const auto& [q, k, v, document_start] = inputs;
  if (q.rows() == 0) return;
  const dim3 grid(static_cast<unsigned>(q.rows()), static_cast<unsigned>(g.H));
  with_cuda_float("cached_attention", q.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, cached_attention_kernel<T>, grid, num_warps * warp_size, 0, heads<const T>(inputs.q), heads<const T>(inputs.k),
           heads<const T>(inputs.v), heads<T>(out), position, g);
  });
}

}  // namespace mst::cuda
