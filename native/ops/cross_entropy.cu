// Softmax cross-entropy in place, one block a row; see cross_entropy.h. The row is read twice and written once; the second read
// comes from L2 while few rows are in flight.
#include "cross_entropy.h"

#include "../cuda/reduce.h"
#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

constexpr int block_size = 512;

struct Outputs {
  float *losses, *lse, *log_probability, *entropy, *correct;
};

struct Options {
  std::int64_t first_row, ignore_index;
  double label_smoothing, z_loss;
  float softcap;  // 0: none
  bool write_dlogits;
};

__device__ inline float capped(float z, float softcap) {
  return softcap > 0 ? softcap * tanhf(z / softcap) : z;
}

// Maximum, Σ exp(z - max), Σ exp(z - max) z and Σ z of part of a row, merged without looking at a logit twice.
struct Online {
  float max = -INFINITY, sum_exp = 0, sum_exp_z = 0, sum = 0;

  __device__ void add(float z) {
    sum += z;
    if (z > max) {
      const float shrink = expf(max - z);  // exp(-inf) is 0 the first time
      sum_exp *= shrink;
      sum_exp_z *= shrink;
      max = z;
    }
    const float e = z == -INFINITY ? 0.0f : expf(z - max);
    sum_exp += e;
    if (e > 0) sum_exp_z += e * z;
  }
};

// All threads get the row's sums.
__device__ inline Online merge(Online part) {
  Online row;
  row.max = block_max(part.max);
  const float shrink = part.max == -INFINITY ? 0.0f : expf(part.max - row.max);
  row.sum_exp = block_sum(part.sum_exp * shrink);
  row.sum_exp_z = block_sum(part.sum_exp_z * shrink);
  row.sum = block_sum(part.sum);
  return row;
}

template <int width, class T>
__global__ void __launch_bounds__(block_size)
    cross_entropy_kernel(T* logits, const std::int32_t* targets, const float* token_weights, Outputs outputs, std::int64_t M,
                         std::int64_t V, std::int64_t stride, Options options, long long* status) {
  const std::int64_t whole = V / width * width;  // columns in whole vectors
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
        for (std::int64_t v = threadIdx.x; v < V; v += block_size) row[v] = from_float<T>(0.0f);
      continue;
    }
    const float raw_target = to_float(row[target]);
    Online part;
    int num_before = 0;  // logits that keep the target from being the first maximum
    const auto add = [&](float z, std::int64_t v) {
      num_before += z > raw_target || (z == raw_target && v < target);
      part.add(capped(z, options.softcap));
    };
    for (std::int64_t v = std::int64_t(threadIdx.x) * width; v < whole; v += block_size * width) {
      float z[width];
      load(row + v, z);
#pragma unroll
      for (int i = 0; i < width; ++i) add(z[i], v + i);
    }
    for (std::int64_t v = whole + threadIdx.x; v < V; v += block_size) add(to_float(row[v]), v);
    const Online sums = merge(part);
    const int is_beaten = outputs.correct ? block_sum(num_before) : 0;
    const float shift = sums.max == -INFINITY ? 0.0f : sums.max;
    const double lse = double(shift) + log(double(sums.sum_exp)), z_target = capped(raw_target, options.softcap);
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
    const auto gradient = [&](float logit, std::int64_t v) {
      const float z = capped(logit, options.softcap);
      float value = expf(z - shift) * scale - smoothing - (v == target ? at_target : 0.0f);
      if (options.softcap > 0) value *= 1.0f - (z / options.softcap) * (z / options.softcap);
      return value * weight;
    };
    for (std::int64_t v = std::int64_t(threadIdx.x) * width; v < whole; v += block_size * width) {
      float d[width];
      load(row + v, d);
#pragma unroll
      for (int i = 0; i < width; ++i) d[i] = gradient(d[i], v + i);
      store(d, row + v);
    }
    for (std::int64_t v = whole + threadIdx.x; v < V; v += block_size) row[v] = from_float<T>(gradient(to_float(row[v]), v));
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
    launch(kernel, grid_for(M, 1, 65535), block_size, 0, logits.as<T>(), targets.as<const std::int32_t>(),
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
