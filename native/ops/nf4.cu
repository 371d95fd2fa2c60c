// Weights in 4 bits; see nf4.h. Memory is the limit: a warp reads 128 neighbouring bytes of codes and writes 256 neighbouring elements.
#include "nf4.h"

#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

constexpr int width = 8;  // elements per word of codes
constexpr int batch = 4;  // words that a thread loads at once
constexpr int num_threads = 256;

// One warp per block of 64 elements. As integers the bits of magnitudes are in ascending order, with NaN above all others.
template <class T>
__global__ void quantize_blocks(const T* x, std::int64_t n, std::int64_t num_blocks, std::uint8_t* codes, float* largest,
                                Nf4Values values) {
  const std::int64_t lane = threadIdx.x % 32;
  for (std::int64_t b = grid_thread() / 32; b < num_blocks; b += grid_threads() / 32) {
    const std::int64_t i = b * nf4_block + 2 * lane;
    const float first = i < n ? to_float(x[i]) : 0.0f, second = i + 1 < n ? to_float(x[i + 1]) : 0.0f;
    const std::uint32_t bits = Max::combine(__float_as_uint(first) & 0x7fffffffu, __float_as_uint(second) & 0x7fffffffu);
    const float magnitude = __uint_as_float(warp_reduce<Max>(bits));
    const float inverse = nf4_inverse(magnitude);
    if (lane == 0) largest[b] = magnitude;
    if (i < n) codes[i / 2] = static_cast<std::uint8_t>(values.code(first * inverse) << 4 | values.code(second * inverse));
  }
}

// One block of threads.
__global__ void mean_kernel(const float* largest, std::int64_t num_blocks, float* mean) {
  double sum = 0;
  for (std::int64_t b = threadIdx.x; b < num_blocks; b += blockDim.x) sum += double(largest[b]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *mean = static_cast<float>(sum / double(num_blocks));
}

// One block of threads per group, one thread per block of weights.
__global__ void quantize_largest(const float* largest, std::int64_t num_blocks, const float* offset, float* scales, std::uint8_t* absmax,
                                 DynamicMap<true> map) {
  __shared__ std::uint32_t of_warps[nf4_blocks_group / 32];
  const std::int64_t b = std::int64_t(blockIdx.x) * nf4_blocks_group + threadIdx.x;
  const float difference = b < num_blocks ? largest[b] - *offset : 0.0f;
  const std::uint32_t bits = warp_reduce<Max>(__float_as_uint(difference) & 0x7fffffffu);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = bits;
  __syncthreads();
  std::uint32_t most = 0;
  for (const std::uint32_t each : of_warps) most = Max::combine(most, each);
  const float scale = __uint_as_float(most);
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  if (b < num_blocks) absmax[b] = nf4_absmax_code(map.magnitudes, difference * nf4_inverse(scale));
}

struct Codes {
  const std::uint8_t *codes, *absmax;
  const float *scales, *offset;

  __device__ float largest_of(std::int64_t b, const float* map, float offset) const {
    const float value = map[absmax[b]], scale = scales[b / nf4_blocks_group];
#ifdef __CUDACC__
    return __fadd_rn(__fmul_rn(value, scale), offset);  // not fused
#else
    return value * scale + offset;
#endif
  }
};

// Writes vectors of 8 elements, then the elements that are left over.
template <class T>
__global__ void dequantize_kernel(Codes from, T* y, std::int64_t n, std::int64_t num_vectors, Nf4Values nf4, DynamicMap<true> dynamic) {
  __shared__ float values[16], map[256];
  if (threadIdx.x < 16) values[threadIdx.x] = nf4.values[threadIdx.x];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) map[i] = nf4_absmax_value(dynamic.magnitudes, static_cast<std::uint8_t>(i));
  const float offset = *from.offset;
  __syncthreads();
  const std::uint32_t* const words = reinterpret_cast<const std::uint32_t*>(from.codes);
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.x * batch + threadIdx.x;
  for (std::int64_t v = first; v < num_vectors; v += grid_threads() * batch) {
    std::uint32_t loaded[batch] = {};
    float largest[batch] = {};
#pragma unroll
    for (int j = 0; j < batch; ++j) {
      const std::int64_t at = v + std::int64_t(j) * blockDim.x;
      if (at >= num_vectors) continue;
      loaded[j] = words[at];
      largest[j] = from.largest_of(at / (nf4_block / width), map, offset);
    }
#pragma unroll
    for (int j = 0; j < batch; ++j) {
      const std::int64_t at = v + std::int64_t(j) * blockDim.x;
      if (at >= num_vectors) continue;
      float elements[width];
#pragma unroll
      for (int i = 0; i < width; ++i) elements[i] = values[loaded[j] >> (i / 2 * 8 + (i % 2 ? 0 : 4)) & 15] * largest[j];
      store(elements, y + at * width);
    }
  }
  for (std::int64_t i = num_vectors * width + grid_thread(); i < n; i += grid_threads()) {
    const int code = i % 2 ? from.codes[i / 2] & 15 : from.codes[i / 2] >> 4;
    y[i] = from_float<T>(values[code] * from.largest_of(i / nf4_block, map, offset));
  }
}

bool is_aligned(const Tensor& tensor, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(tensor.data) % bytes == 0;
}

}  // namespace

void nf4_quantize(Context& context, const Tensor& x, const Nf4& to, const Tensor& largest) {
  check_nf4_quantize(x, to, largest);
  const std::int64_t num_blocks = largest.size();
  if (num_blocks == 0) return;
  with_cuda_float("nf4_quantize", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, quantize_blocks<T>, grid_for(num_blocks, num_threads / 32), num_threads, 0, x.as<T>(), x.size(), num_blocks,
           to.codes.as<std::uint8_t>(), largest.as<float>(), nf4_values);
  });
  launch(context, mean_kernel, 1, 1024, 0, largest.as<float>(), num_blocks, to.offset.as<float>());
  launch(context, quantize_largest, static_cast<unsigned>(to.scales.size()), static_cast<unsigned>(nf4_blocks_group), 0,
         largest.as<float>(), num_blocks, to.offset.as<float>(), to.scales.as<float>(), to.absmax.as<std::uint8_t>(), signed_map);
}

void nf4_dequantize(Context& context, const Nf4& from, const Tensor& y) {
  check_nf4_dequantize(from, y);
  const std::int64_t n = y.size();
  if (n == 0) return;
  const std::int64_t num_vectors = is_aligned(from.codes, 4) && is_aligned(y, 16) ? n / width : 0;
  const Codes codes{from.codes.as<std::uint8_t>(), from.absmax.as<std::uint8_t>(), from.scales.as<float>(), from.offset.as<float>()};
  with_cuda_float("nf4_dequantize", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, dequantize_kernel<T>, grid_for(n, num_threads * batch * width), num_threads, 0, codes, y.as<T>(), n, num_vectors,
           nf4_values, signed_map);
  });
}

}  // namespace mst::cuda
