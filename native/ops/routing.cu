// Routes tokens to experts; see routing.h.
#include "routing.h"

#include "../cuda/common/reduce.h"

namespace mst::cuda {
namespace {

constexpr int token_threads = 256, tokens_per_block = token_threads / 32;

// A warp for each token. Every lane keeps to the same columns, and reads what it has written itself.
template <class Body>
__device__ inline void for_each_token(std::int64_t M, const Body& body) {
  for (std::int64_t m = grid_thread() / 32; m < M; m += grid_threads() / 32) body(m, static_cast<int>(threadIdx.x % 32));
}

struct Candidate {
  float p;
  int expert;  // -1: none
};

// Whether a comes before b in the order of falling probability, and rising number for equal ones.
__device__ inline bool is_before(const Candidate& a, const Candidate& b) {
  if (a.expert < 0 || b.expert < 0) return b.expert < 0 && a.expert >= 0;
  return a.p > b.p || (a.p == b.p && a.expert < b.expert);
}

// The first in that order of the warp's candidates, in every lane.
__device__ inline Candidate first_of_warp(Candidate mine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other{__shfl_xor_sync(0xffffffffu, mine.p, offset), __shfl_xor_sync(0xffffffffu, mine.expert, offset)};
    if (is_before(other, mine)) mine = other;
  }
  return mine;
}

struct Routing {
  float* probabilities;
  std::int32_t* experts;
  float* weights;
  std::int64_t M, E, k, probabilities_stride, experts_stride, weights_stride;
  bool normalized;
};

template <class T>
__global__ void __launch_bounds__(token_threads) routing_forward_kernel(const T* logits, std::int64_t logits_stride, Routing r) {
  for_each_token(r.M, [&](std::int64_t m, int lane) {
    const T* const from = logits + m * logits_stride;
    float* const p = r.probabilities + m * r.probabilities_stride;
    std::int32_t* const experts = r.experts + m * r.experts_stride;
    float* const weights = r.weights + m * r.weights_stride;
    float largest = -INFINITY, sum = 0;
    for (std::int64_t e = lane; e < r.E; e += 32) largest = fmaxf(largest, to_float(from[e]));
    largest = warp_reduce<Max>(largest);
    for (std::int64_t e = lane; e < r.E; e += 32) sum += p[e] = expf(to_float(from[e]) - largest);
    sum = warp_reduce<Sum>(sum);
    for (std::int64_t e = lane; e < r.E; e += 32) p[e] /= sum;
    Candidate last{0, -1};
    float of_chosen = 0;
    for (int j = 0; j < r.k; ++j) {
      Candidate next{0, -1};
      for (int e = lane; e < r.E; e += 32) {
        const Candidate each{p[e], e};
        if (each.p == each.p && (j == 0 || is_before(last, each)) && is_before(each, next)) next = each;
      }
      next = first_of_warp(next);
      if (next.expert < 0) next = {NAN, j};  // the row is not finite
      of_chosen += next.p;
      if (lane == 0) experts[j] = next.expert, weights[j] = next.p;
      last = next;
    }
    if (lane == 0 && r.normalized)
      for (int j = 0; j < r.k; ++j) weights[j] /= of_chosen;
  });
}

// See the CPU's routing_backward() for the formula.
template <class T>
__global__ void __launch_bounds__(token_threads)
    routing_backward_kernel(const float* dweights, std::int64_t dweights_stride, Routing r, T* dlogits, std::int64_t dlogits_stride) {
  for_each_token(r.M, [&](std::int64_t m, int lane) {
    const float* const p = r.probabilities + m * r.probabilities_stride;
    const std::int32_t* const experts = r.experts + m * r.experts_stride;
    const float* const weights = r.weights + m * r.weights_stride;
    const float* const dw = dweights + m * dweights_stride;
    float of_weights = 0, sum = 0, of_all = 0;
    for (int j = 0; j < r.k; ++j) of_weights += weights[j] * dw[j], sum += p[experts[j]];
    const auto gradient = [&](int j) { return r.normalized ? (dw[j] - of_weights) / sum : dw[j]; };
    for (int j = 0; j < r.k; ++j) of_all += p[experts[j]] * gradient(j);
    for (std::int64_t e = lane; e < r.E; e += 32) {
      float own = 0;
      for (int j = 0; j < r.k; ++j)
        if (experts[j] == e) own = gradient(j);
      dlogits[m * dlogits_stride + e] = from_float<T>(p[e] * (own - of_all));
    }
  });
}

constexpr int sort_threads = 1024;

// A block for each expert goes through all pairs twice: to count those of experts before, and to place its own.
__global__ void __launch_bounds__(sort_threads)
    routing_sort_kernel(const std::int32_t* experts, int num_pairs, std::int32_t* offsets, std::int32_t* order, std::int32_t* places) {
  __shared__ int of_warps[sort_threads / 32];
  const int expert = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int num_before = 0;
  for (int pair = threadIdx.x; pair < num_pairs; pair += sort_threads) num_before += experts[pair] < expert;
  int next = block_sum(num_before);
  if (threadIdx.x == 0) {
    offsets[expert] = next;
    if (blockIdx.x + 1 == gridDim.x) offsets[expert + 1] = num_pairs;
  }
  for (int first = 0; first < num_pairs; first += sort_threads) {
    const int pair = first + static_cast<int>(threadIdx.x);
    const bool is_own = pair < num_pairs && experts[pair] == expert;
    const unsigned own = __ballot_sync(0xffffffffu, is_own);
    if (lane == 0) of_warps[warp] = __popc(own);
    __syncthreads();
    int place = next + __popc(own & ((1u << lane) - 1));
    for (int w = 0; w < sort_threads / 32; ++w) {
      next += of_warps[w];
      if (w < warp) place += of_warps[w];
    }
    if (is_own) {
      order[place] = pair;
      places[pair] = place;
    }
    __syncthreads();  // the counts have been read
  }
}

Routing routing_of(const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool normalized) {
  return {probabilities.as<float>(), experts.as<std::int32_t>(),
          weights.as<float>(),       probabilities.rows(),
          probabilities.cols(),      experts.cols(),
          probabilities.row_stride,  experts.row_stride,
          weights.row_stride,        normalized};
}

}  // namespace

void routing_forward(Context& context, const Tensor& logits, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                     bool normalized) {
  check_routing_forward(logits, probabilities, experts, weights);
  if (logits.rows() == 0) return;
  with_cuda_float("routing_forward", logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, routing_forward_kernel<T>, grid_for(logits.rows(), tokens_per_block), token_threads, 0, logits.as<const T>(),
           logits.row_stride, routing_of(probabilities, experts, weights, normalized));
  });
}

void routing_backward(Context& context, const Tensor& dweights, const Tensor& probabilities, const Tensor& experts, const Tensor& weights,
                      const Tensor& dlogits, bool normalized) {
  check_routing_backward(dweights, probabilities, experts, weights, dlogits);
  if (dlogits.rows() == 0) return;
  with_cuda_float("routing_backward", dlogits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(context, routing_backward_kernel<T>, grid_for(dlogits.rows(), tokens_per_block), token_threads, 0, dweights.as<const float>(),
           dweights.row_stride, routing_of(probabilities, experts, weights, normalized), dlogits.as<T>(), dlogits.row_stride);
  });
}

void routing_sort(Context& context, const Tensor& experts, const Tensor& offsets, const Tensor& order, const Tensor& places) {
  check_routing_sort(experts, offsets, order, places);
  launch(context, routing_sort_kernel, static_cast<unsigned>(offsets.size() - 1), sort_threads, 0, experts.as<const std::int32_t>(),
         static_cast<int>(experts.size()), offsets.as<std::int32_t>(), order.as<std::int32_t>(), places.as<std::int32_t>());
}

}  // namespace mst::cuda
