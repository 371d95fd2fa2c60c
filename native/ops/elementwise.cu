// Element by element, in vectors of 16 bytes; see elementwise.h.
#include "elementwise.h"

#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

template <int width, class T>
struct Add {
  Rows<const T> a, b;
  Rows<T> y;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    float first[width], second[width];
    load(a.at(n, c), first);
    load(b.at(n, c), second);
    for (int i = 0; i < width; ++i) first[i] += second[i];
    store(first, y.at(n, c));
  }
};

template <int width, class T, class U>
struct AddTo {
  Rows<const T> x;
  Rows<U> y;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    float added[width], sum[width];
    load(x.at(n, c), added);
    load(y.at(n, c), sum);
    for (int i = 0; i < width; ++i) sum[i] += added[i];
    store(sum, y.at(n, c));
  }
};

// y = x * factor, or x * *device_factor / *divisor
template <int width, class T, class U>
struct Scale {
  Rows<const T> x;
  Rows<U> y;
  float factor;
  const float *device_factor, *divisor;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    const float by = device_factor ? *device_factor / (divisor ? *divisor : 1.0f) : factor;
    float values[width];
    load(x.at(n, c), values);
    for (int i = 0; i < width; ++i) values[i] *= by;
    store(values, y.at(n, c));
  }
};

template <class T>
struct Fill {
  Rows<T> y;
  double value;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    if constexpr (sizeof(T) == 2)
      *y.at(n, c) = from_float<T>(static_cast<float>(value));
    else
      *y.at(n, c) = static_cast<T>(value);
  }
};

template <class T>
struct Copy {
  Rows<const T> x;
  Rows<T> y;
  __device__ void operator()(std::int64_t n, std::int64_t c) const {
    *y.at(n, c) = *x.at(n, c);
  }
};

// Makes contiguous tensors one row, so that no thread divides.
void flatten(std::initializer_list<Tensor*> tensors) {
  for (const Tensor* tensor : tensors)
    if (!tensor->is_contiguous()) return;
  for (Tensor* tensor : tensors) {
    const std::int64_t size = tensor->size();
    tensor->rank = 2;
    tensor->shape = {1, size};
    tensor->row_stride = size;
  }
}

template <class T, class U>
void run_scale(Context& context, Tensor x, Tensor y, float factor, const float* device_factor, const float* divisor) {
  flatten({&x, &y});
  constexpr int width = vector_width<T> < vector_width<U> ? vector_width<T> : vector_width<U>;
  with_width<width>(is_vectorizable({&x, &y}), [&]<int n>(std::integral_constant<int, n>) {
    for_each_vector<n>(context, y.rows(), y.cols(), Scale<n, T, U>{rows_of<const T>(x), rows_of<U>(y), factor, device_factor, divisor});
  });
}

template <class T, class U>
void run_add_to(Context& context, Tensor x, Tensor y) {
  flatten({&x, &y});
  constexpr int width = vector_width<T> < vector_width<U> ? vector_width<T> : vector_width<U>;
  with_width<width>(is_vectorizable({&x, &y}), [&]<int n>(std::integral_constant<int, n>) {
    for_each_vector<n>(context, y.rows(), y.cols(), AddTo<n, T, U>{rows_of<const T>(x), rows_of<U>(y)});
  });
}

}  // namespace

void add(Context& context, const Tensor& a_tensor, const Tensor& b_tensor, const Tensor& y_tensor) {
  check_add(a_tensor, b_tensor, y_tensor);
  Tensor a = a_tensor, b = b_tensor, y = y_tensor;
  flatten({&a, &b, &y});
  with_cuda_float("add", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_width<vector_width<T>>(is_vectorizable({&a, &b, &y}), [&]<int n>(std::integral_constant<int, n>) {
      for_each_vector<n>(context, y.rows(), y.cols(), Add<n, T>{rows_of<const T>(a), rows_of<const T>(b), rows_of<T>(y)});
    });
  });
}

void add_to(Context& context, const Tensor& x, const Tensor& y) {
  check_add_to(x, y);
  if (x.dtype == Dtype::bf16 && y.dtype == Dtype::f32) return run_add_to<__nv_bfloat16, float>(context, x, y);
  if (x.dtype == Dtype::f32 && y.dtype == Dtype::bf16) return run_add_to<float, __nv_bfloat16>(context, x, y);
  with_cuda_float("add_to", x.dtype,
                  [&](auto tag) { run_add_to<typename decltype(tag)::type, typename decltype(tag)::type>(context, x, y); });
}

void scale(Context& context, const Tensor& x, const Tensor& y, double factor) {
  check_scale(x, y);
  with_cuda_float("scale", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run_scale<T, T>(context, x, y, static_cast<float>(factor), nullptr, nullptr);
  });
}

void scale_by(Context& context, const Tensor& x, const Tensor& factor, const OptionalTensor& divisor, const Tensor& y) {
  check_scale_by(x, factor, divisor, y);
  with_cuda_float("scale_by", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run_scale<T, T>(context, x, y, 1.0f, factor.as<float>(), divisor ? divisor->as<float>() : nullptr);
  });
}

void cast(Context& context, const Tensor& x, const Tensor& y) {
  check_cast(x, y);
  if (x.dtype == Dtype::i32 || x.dtype == Dtype::f64) {
    MST_CHECK(x.dtype == y.dtype, "cast: x ", x, " cannot be converted to y ", y, " on CUDA");
    if (x.dtype == Dtype::i32)
      return for_each_vector<1>(context, y.rows(), y.cols(), Copy<std::int32_t>{rows_of<const std::int32_t>(x), rows_of<std::int32_t>(y)});
    return for_each_vector<1>(context, y.rows(), y.cols(), Copy<double>{rows_of<const double>(x), rows_of<double>(y)});
  }
  with_cuda_float("cast", x.dtype, [&](auto from) {
    with_cuda_float("cast", y.dtype, [&](auto to) {
      run_scale<typename decltype(from)::type, typename decltype(to)::type>(context, x, y, 1.0f, nullptr, nullptr);
    });
  });
}

void fill(Context& context, const Tensor& tensor, double value) {
  Tensor y = tensor;
  flatten({&y});
  const auto run = [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_vector<1>(context, y.rows(), y.cols(), Fill<T>{rows_of<T>(y), value});
  };
  if (y.dtype == Dtype::i32) return run(type_tag<std::int32_t>{});
  if (y.dtype == Dtype::u8) return run(type_tag<std::uint8_t>{});
  if (y.dtype == Dtype::f64) return run(type_tag<double>{});
  with_cuda_float("fill", y.dtype, run);
}

}  // namespace mst::cuda
