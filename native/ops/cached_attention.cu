// Attention to kept keys and values; see cached_attention.h. A block for each query of each head, a warp for every so-many-th key.
#include "cached_attention.h"

#include "../cuda/reduce.h"

namespace mst::cuda {
namespace {

constexpr int warp_size = 32, num_warps = 8, max_head_size = 512, max_owned = max_head_size / warp_size;

template <class T>
__global__ void cached_attention_kernel(const T* q, const T* k, const T* v, T* out, std::int64_t q_stride, std::int64_t k_stride,
                                        std::int64_t v_stride, std::int64_t out_stride, std::int64_t position, std::int64_t D,
                                        std::int64_t heads_per_group, float scale, std::int64_t window, float softcap) {
  const std::int64_t n = blockIdx.x, h = blockIdx.y, p = position + n, column = h / heads_per_group * D;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int owned = static_cast<int>((D + warp_size - 1) / warp_size);  // elements lane, lane + 32, … of a head
  float query[max_owned], sum[max_owned];
#pragma unroll
  for (int i = 0; i < max_owned; ++i) {
    const std::int64_t d = lane + std::int64_t(i) * warp_size;
    query[i] = i < owned && d < D ? to_float(q[n * q_stride + h * D + d]) : 0.0f;
    sum[i] = 0;
  }
  float max = -INFINITY, total = 0;
  const std::int64_t first = window > 0 && p - window + 1 > 0 ? p - window + 1 : 0;
  for (std::int64_t s = first + warp; s <= p; s += num_warps) {
    float product = 0;
#pragma unroll
    for (int i = 0; i < max_owned; ++i) {
      const std::int64_t d = lane + std::int64_t(i) * warp_size;
      if (i < owned && d < D) product += query[i] * to_float(k[s * k_stride + column + d]);
    }
    float score = warp_reduce<Sum>(product) * scale;
    if (softcap > 0) score = softcap * tanhf(score / softcap);
    const float new_max = fmaxf(max, score), old_factor = expf(max - new_max), factor = expf(score - new_max);
    total = total * old_factor + factor;
    max = new_max;
#pragma unroll
    for (int i = 0; i < max_owned; ++i) {
      const std::int64_t d = lane + std::int64_t(i) * warp_size;
      if (i < owned && d < D) sum[i] = sum[i] * old_factor + factor * to_float(v[s * v_stride + column + d]);
    }
  }
  // The warps' parts, put together in the order of the warps.
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
    out[n * out_stride + h * D + d] = from_float<T>(value / whole_total);
  }
}

}  // namespace

void cached_attention(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, std::int64_t position,
                      std::int64_t D, double scale, std::int64_t window, double softcap) {
  MST_CHECK(D <= max_head_size, "cached_attention: head size ", D, " is over ", max_head_size);
  MST_CHECK(position + q.rows() <= k.rows(), "cached_attention: position ", position, " and ", q.rows(), " queries pass the ", k.rows(),
            " rows of k");
  if (q.rows() == 0) return;
  const std::int64_t H = q.cols() / D;
  with_cuda_float("cached_attention", q.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const dim3 grid(static_cast<unsigned>(q.rows()), static_cast<unsigned>(H));
    launch(context, cached_attention_kernel<T>, grid, num_warps * warp_size, 0, q.as<const T>(), k.as<const T>(), v.as<const T>(),
           out.as<T>(), q.row_stride, k.row_stride, v.row_stride, out.row_stride, position, D, H / (k.cols() / D), float(scale), window,
           float(softcap));
  });
}

}  // namespace mst::cuda
