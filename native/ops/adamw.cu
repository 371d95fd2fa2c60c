// AdamW; see adamw.h.
#include "adamw.h"

#include <cmath>

#include "../cuda/launch.h"

namespace mst::cuda {
namespace {

struct Update {
  float learning_rate, beta1, beta2, eps, decay, correction1, correction2;
};

template <class T>
__global__ void adamw_kernel(T* parameter, float* master, const float* gradient, float* m, float* v, const float* gradient_factor, Update u,
                             std::int64_t size) {
  const float factor = gradient_factor ? *gradient_factor : 1.0f;
  if (!(factor - factor == 0.0f)) return;  // NaN or infinite: leave everything as it is
  for (std::int64_t i = grid_thread(); i < size; i += grid_threads()) {
    const float g = gradient[i] * factor;
    const float mean = u.beta1 * m[i] + (1.0f - u.beta1) * g;
    const float square = u.beta2 * v[i] + (1.0f - u.beta2) * g * g;
    m[i] = mean;
    v[i] = square;
    const float step = u.learning_rate * (mean * u.correction1) / (sqrtf(square * u.correction2) + u.eps);
    const float updated = (master ? master[i] : to_float(parameter[i])) * u.decay - step;
    if (master) master[i] = updated;
    parameter[i] = from_float<T>(updated);
  }
}

}  // namespace

void adamw(const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const Tensor& m, const Tensor& v,
           const OptionalTensor& gradient_factor, double learning_rate, double beta1, double beta2, double eps, double weight_decay,
           std::int64_t step) {
  MST_CHECK(step >= 1, "adamw: step must be at least 1, got ", step);
  for (const Tensor* tensor : {&gradient, &m, &v})
    MST_CHECK(tensor->size() == parameter.size(), "adamw: ", *tensor, " does not have the size of ", parameter);
  if (parameter.size() == 0) return;
  const Update update{float(learning_rate),
                      float(beta1),
                      float(beta2),
                      float(eps),
                      float(1 - learning_rate * weight_decay),
                      float(1 / (1 - std::pow(beta1, double(step)))),
                      float(1 / (1 - std::pow(beta2, double(step))))};
  with_cuda_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(adamw_kernel<T>, grid_for(parameter.size(), 256), 256, 0, parameter.as<T>(), master ? master->as<float>() : nullptr,
           gradient.as<const float>(), m.as<float>(), v.as<float>(), gradient_factor ? gradient_factor->as<const float>() : nullptr, update,
           parameter.size());
  });
}

}  // namespace mst::cuda
