// AdamW; see adamw.h.
#include "adamw.h"

#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

struct Update {
  float learning_rate, beta1, beta2, eps, decay;
  double exact_beta1, exact_beta2;  // for the corrections
  std::int64_t seed, op;
};

__device__ bool is_finite(const float* factor) {
  return !factor || *factor - *factor == 0.0f;
}

__global__ void adamw_count_kernel(std::int32_t* num_steps, const float* gradient_factor) {
  if (is_finite(gradient_factor)) *num_steps += 1;
}

// In vectors of 4, which share the words that they are rounded with, or one by one.
template <int width, class T, class G>
__global__ void adamw_kernel(T* parameter, float* master, const G* gradient, float* m, float* v, const float* gradient_factor,
                             const std::int32_t* num_steps, Update u, std::int64_t size) {
  if (!is_finite(gradient_factor)) return;
  __shared__ float corrections[2];
  const std::int32_t t = *num_steps;
  if (threadIdx.x == 0) {
    corrections[0] = static_cast<float>(1 / (1 - pow(u.exact_beta1, double(t))));
    corrections[1] = static_cast<float>(1 / (1 - pow(u.exact_beta2, double(t))));
  }
  __syncthreads();
  const float factor = gradient_factor ? *gradient_factor : 1.0f;
  for (std::int64_t i = grid_thread() * width; i < size; i += grid_threads() * width) {
    float g[width], mean[width], square[width], updated[width];
    load(gradient + i, g);
    load(m + i, mean);
    load(v + i, square);
    if (master)
      load(master + i, updated);
    else
      load(parameter + i, updated);
#pragma unroll
    for (int j = 0; j < width; ++j) {
      g[j] *= factor;
      mean[j] = u.beta1 * mean[j] + (1.0f - u.beta1) * g[j];
      square[j] = u.beta2 * square[j] + (1.0f - u.beta2) * g[j] * g[j];
      const float step = u.learning_rate * (mean[j] * corrections[0]) / (sqrtf(square[j] * corrections[1]) + u.eps);
      updated[j] = updated[j] * u.decay - step;
    }
    store(mean, m + i);
    store(square, v + i);
    if (master) store(updated, master + i);
    if (sizeof(T) == sizeof(float) || master) {
      store(updated, parameter + i);
    } else {
      const Philox random = rounding_words(i / 4, u.seed, u.op, t);
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const std::uint32_t rounded = round_at_random(__float_as_uint(updated[j]), random.words[width == 4 ? j : i % 4]);
        updated[j] = __uint_as_float(rounded << 16);
      }
      store(updated, parameter + i);
    }
  }
}

}  // namespace

void adamw_count(const Tensor& num_steps, const OptionalTensor& gradient_factor) {
  launch(adamw_count_kernel, 1, 1, 0, num_steps.as<std::int32_t>(), gradient_factor ? gradient_factor->as<const float>() : nullptr);
}

void adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
           const OptionalTensor& gradient_factor, const Tensor& num_steps, double learning_rate, double beta1, double beta2, double eps,
           double weight_decay, std::int64_t seed, std::int64_t op) {
  for (const Tensor* tensor : {&gradient, &m, &v})
    MST_CHECK(tensor->size() == parameter.size(), "adamw: ", *tensor, " does not have the size of ", parameter);
  if (parameter.size() == 0) return;
  const Update update{
      float(learning_rate), float(beta1), float(beta2), float(eps), float(1 - learning_rate * weight_decay), beta1, beta2, seed, op};
  with_cuda_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_cuda_float("adamw", gradient.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const auto is_whole = [](const Tensor& tensor) {
        return reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0 && tensor.size() % 4 == 0;
      };
      const bool in_vectors = is_whole(parameter) && is_whole(gradient) && is_whole(m) && is_whole(v) && (!master || is_whole(*master));
      launch(in_vectors ? adamw_kernel<4, T, G> : adamw_kernel<1, T, G>, grid_for(parameter.size(), in_vectors ? 1024 : 256), 256, 0,
             parameter.as<T>(), master ? master->as<float>() : nullptr, gradient.as<const G>(), m.as<float>(), v.as<float>(),
             gradient_factor ? gradient_factor->as<const float>() : nullptr, num_steps.as<const std::int32_t>(), update, parameter.size());
    });
  });
}

}  // namespace mst::cuda
