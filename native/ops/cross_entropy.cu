// Softmax cross-entropy in place, one block a row; see cross_entropy.h. The row is read twice and written once; the second read
// comes from L2, which holds all rows in flight.
#include "cross_entropy.h"

#include "../cuda/math.h"
#include "../cuda/reduce.h"
#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

// Blocks of max_threads take all registers of a multiprocessor, so that no more rows are in flight than there are multiprocessors.
constexpr int max_threads = 1024, batch = 4;
constexpr std::int64_t long_row_bytes = 128 << 10;  // from where a row takes a whole multiprocessor, so that the L2 holds all in flight

struct Outputs {
  float *losses, *lse, *log_probability, *entropy, *correct;
};

struct Options {
  std::int64_t first_row, ignore_index;
  double label_smoothing, z_loss;
  float softcap;  // 0: none
  bool write_dlogits;
};

// softcap · tanh(z / softcap); softcap 0: z
template <class T>
__device__ inline float capped(float z, float softcap, float inverse_softcap) {
  return softcap > 0 ? softcap * hyperbolic_tangent<T>(z * inverse_softcap) : z;
}

// Maximum, Σ exp(z - max), Σ exp(z - max) z and Σ z of part of a row, merged without looking at a logit twice.
struct Online {
  float max = -INFINITY, sum_exp = 0, sum_exp_z = 0, sum = 0;

  // wants_more: sum_exp_z and sum too.
  template <class T, int width>
  __device__ void add(const float (&z)[width], bool wants_more) {
    float largest = max;
#pragma unroll
    for (int i = 0; i < width; ++i) largest = fmaxf(largest, z[i]);
    const float shift = largest == -INFINITY ? 0.0f : largest;
    const float shrink = exponential<T>(max - shift);  // exp(-inf) is 0 the first time
    max = largest;
    sum_exp *= shrink;
    sum_exp_z *= shrink;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float e = exponential<T>(z[i] - shift);
      sum_exp += e;
      if (!wants_more) continue;
      sum += z[i];
      if (e > 0) sum_exp_z += e * z[i];
    }
  }
};

// All threads get the row's sums.
template <class T>
__device__ inline Online merge(const Online& part, bool wants_more) {
  Online row;
  row.max = block_max(part.max);
  const float shrink = part.max == -INFINITY ? 0.0f : exponential<T>(part.max - row.max);
  row.sum_exp = block_sum(part.sum_exp * shrink);
  if (wants_more) {
    row.sum_exp_z = block_sum(part.sum_exp_z * shrink);
    row.sum = block_sum(part.sum);
  }
  return row;
}

template <int width, class T>
__global__ void __launch_bounds__(max_threads)
    cross_entropy_kernel(T* logits, const std::int32_t* targets, const float* token_weights, Outputs outputs, std::int64_t M,
                         std::int64_t V, std::int64_t stride, Options options, long long* status) {
  const bool wants_more = options.label_smoothing > 0 || outputs.entropy;
  const float softcap = options.softcap, inverse_softcap = softcap > 0 ? 1.0f / softcap : 0.0f;
  for (std::int64_t m = blockIdx.x; m < M; m += gridDim.x) {
    T* const row = logits + m * stride;
    const std::int64_t target = targets[m];
    const bool is_ignored = target == options.ignore_index, is_valid = target >= 0 && target < V;
    if (is_ignored || !is_valid) {
      if (threadIdx.x == 0) {
        if (!is_ignored) note_status(status, status_cross_entropy, options.first_row + m, target, V);
        for (float* output : {outputs.losses, outputs.lse, outputs.log_probability, outputs.entropy, outputs.correct})
          if (output) output[m] = 0;
      }
      if (options.write_dlogits)
        for (std::int64_t v = threadIdx.x; v < V; v += blockDim.x) row[v] = from_float<T>(0.0f);
      continue;
    }
    const float raw_target = to_float(row[target]);
    Online part;
    int num_before = 0;  // logits that keep the target from being the first maximum
    for_each_of_row<width, batch>(row, V, [&]<int n>(std::int64_t v, float(&z)[n]) {
      if (outputs.correct) {
#pragma unroll
        for (int i = 0; i < n; ++i) num_before += z[i] > raw_target || (z[i] == raw_target && v + i < target);
      }
      if (softcap > 0) {
#pragma unroll
        for (int i = 0; i < n; ++i) z[i] = capped<T>(z[i], softcap, inverse_softcap);
      }
      part.add<T>(z, wants_more);
    });
    const Online sums = merge<T>(part, wants_more);
    const int is_beaten = outputs.correct ? block_sum(num_before) : 0;
    const float shift = sums.max == -INFINITY ? 0.0f : sums.max;
    const double lse = double(shift) + log(double(sums.sum_exp)), z_target = capped<T>(raw_target, softcap, inverse_softcap);
    if (threadIdx.x == 0) {
      double loss = lse - (1 - options.label_smoothing) * z_target + options.z_loss * lse * lse;
      if (options.label_smoothing > 0) loss -= options.label_smoothing * double(sums.sum) / double(V);
      outputs.losses[m] = float(loss);
      if (outputs.lse) outputs.lse[m] = float(lse);
      if (outputs.log_probability) outputs.log_probability[m] = float(z_target - lse);
      if (outputs.entropy) outputs.entropy[m] = float(lse - double(sums.sum_exp_z) / double(sums.sum_exp));
      if (outputs.correct) outputs.correct[m] = is_beaten == 0;
    }
    if (!options.write_dlogits) continue;
    const float weight = token_weights ? token_weights[m] : 1.0f;
    const float scale = float((1 + 2 * options.z_loss * lse) / double(sums.sum_exp));
    const float smoothing = float(options.label_smoothing / double(V)), at_target = float(1 - options.label_smoothing);
    for_each_of_row<width, batch>(row, V, [&]<int n>(std::int64_t v, float(&d)[n]) {
      float slope[n];  // of the soft-cap
#pragma unroll
      for (int i = 0; i < n; ++i) slope[i] = 1;
      if (softcap > 0) {
#pragma unroll
        for (int i = 0; i < n; ++i) {
          d[i] = capped<T>(d[i], softcap, inverse_softcap);
          slope[i] = 1.0f - (d[i] * inverse_softcap) * (d[i] * inverse_softcap);
        }
      }
#pragma unroll
      for (int i = 0; i < n; ++i) d[i] = exponential<T>(d[i] - shift) * scale - smoothing;
      if (v <= target && target < v + n) {
#pragma unroll
        for (int i = 0; i < n; ++i)
          if (v + i == target) d[i] -= at_target;
      }
#pragma unroll
      for (int i = 0; i < n; ++i) d[i] *= slope[i] * weight;
      store(d, row + v);
    });
  }
}

// One block; thread sums are added in a fixed order.
__global__ void cross_entropy_sum_kernel(const float* losses, const float* token_weights, float* loss, std::int64_t N, double scale) {
  double sum = 0;
  for (std::int64_t n = threadIdx.x; n < N; n += blockDim.x) sum += double(losses[n]) * (token_weights ? double(token_weights[n]) : 1.0);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = float(sum * scale);
}

__global__ void cross_entropy_divisor_kernel(const std::int32_t* targets, const float* token_weights, float* divisor, std::int64_t N,
                                             std::int64_t ignore_index) {
  double sum = 0;
  int count = 0;
  for (std::int64_t n = threadIdx.x; n < N; n += blockDim.x) {
    if (targets[n] == ignore_index) continue;
    ++count;
    sum += token_weights ? double(token_weights[n]) : 1.0;
  }
  sum = block_sum(sum);
  count = block_sum(count);
  if (threadIdx.x == 0) *divisor = count > 0 ? float(sum) : 1.0f;
}

}  // namespace

void cross_entropy(const Tensor& logits, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& losses,
                   const OptionalTensor& lse, const OptionalTensor& log_probability, const OptionalTensor& entropy,
                   const OptionalTensor& correct, std::int64_t first_row, std::int64_t ignore_index, double label_smoothing, double z_loss,
                   double softcap, bool write_dlogits) {
  const std::int64_t M = logits.rows(), V = logits.cols();
  if (M == 0) return;
  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? tensor->as<float>() : nullptr; };
  const Outputs outputs{losses.as<float>(), pointer(lse), pointer(log_probability), pointer(entropy), pointer(correct)};
  const Options options{first_row, ignore_index, label_smoothing, z_loss, float(softcap), write_dlogits};
  with_cuda_float("cross_entropy", logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int width = vector_width<T>;
    const auto kernel = has_aligned_rows(logits) ? cross_entropy_kernel<width, T> : cross_entropy_kernel<1, T>;
    const int threads = V * static_cast<std::int64_t>(sizeof(T)) > long_row_bytes ? max_threads : max_threads / 2;
    launch(kernel, grid_for(M, 1, 65535), threads, 0, logits.as<T>(), targets.as<const std::int32_t>(),
           token_weights ? token_weights->as<const float>() : nullptr, outputs, M, V, logits.row_stride, options, status_words());
  });
}

void cross_entropy_sum(const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale) {
  launch(cross_entropy_sum_kernel, 1, 1024, 0, losses.as<const float>(), token_weights ? token_weights->as<const float>() : nullptr,
         loss.as<float>(), losses.size(), scale);
}

void cross_entropy_divisor(const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor, std::int64_t ignore_index) {
  launch(cross_entropy_divisor_kernel, 1, 1024, 0, targets.as<const std::int32_t>(),
         token_weights ? token_weights->as<const float>() : nullptr, divisor.as<float>(), targets.size(), ignore_index);
}

}  // namespace mst::cuda
