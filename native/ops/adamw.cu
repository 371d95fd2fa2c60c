// AdamW; see adamw.h.
#include "adamw.h"

#include "../cuda/launch.h"

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

template <class T, class G>
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
  for (std::int64_t i = grid_thread(); i < size; i += grid_threads()) {
    const float g = to_float(gradient[i]) * factor;
    const float mean = u.beta1 * m[i] + (1.0f - u.beta1) * g;
    const float square = u.beta2 * v[i] + (1.0f - u.beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    const float step = u.learning_rate * (mean * corrections[0]) / (sqrtf(square * corrections[1]) + u.eps);
    const float updated = (master ? master[i] : to_float(parameter[i])) * u.decay - step;
    if (master) master[i] = updated;
    if (sizeof(T) == sizeof(float) || master)
      parameter[i] = from_float<T>(updated);
    else
      reinterpret_cast<std::uint16_t*>(parameter)[i] =
          static_cast<std::uint16_t>(round_at_random(__float_as_uint(updated), rounding_word(i, u.seed, u.op, t)));
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
      launch(adamw_kernel<T, G>, grid_for(parameter.size(), 256), 256, 0, parameter.as<T>(), master ? master->as<float>() : nullptr,
             gradient.as<const G>(), m.as<float>(), v.as<float>(), gradient_factor ? gradient_factor->as<const float>() : nullptr,
             num_steps.as<const std::int32_t>(), update, parameter.size());
    });
  });
}

}  // namespace mst::cuda
