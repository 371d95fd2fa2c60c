// Tensors in host memory for native tests, with a margin around them, rounded random contents and comparison.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tensor.h"

namespace mst::test {

// Owns rows × cols elements of a dtype with `gap` unused elements after each row, beginning `offset` elements into its memory.
class HostTensor {
 public:
  HostTensor(Dtype dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0, std::int64_t offset = 0)
      : bytes_(static_cast<std::size_t>((rows * (cols + gap) + offset)) * size_of(dtype)) {
    view_.data = bytes_.data() + static_cast<std::size_t>(offset) * size_of(dtype);
    view_.dtype = dtype;
    view_.rank = 2;
    view_.shape = {rows, cols};
    view_.row_stride = cols + gap;
  }
  HostTensor(const HostTensor& other) : bytes_(other.bytes_), view_(other.view_) {
    rebase(other);
  }
  HostTensor& operator=(const HostTensor&) = delete;

  static HostTensor vector(Dtype dtype, std::int64_t size) {
    HostTensor result(dtype, 1, size);
    result.view_.rank = 1;
    result.view_.shape = {size};
    return result;
  }

  HostTensor& randomize(unsigned seed, double deviation = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, deviation);
    for_each([&](std::int64_t n, std::int64_t c) { set(n, c, normal(generator)); });
    return *this;
  }
  HostTensor& fill(double value) {
    for_each([&](std::int64_t n, std::int64_t c) { set(n, c, value); });
    return *this;
  }

  // The view, as a tensor of either device.
  const Tensor& cpu() const {
    return view_;
  }
  Tensor cuda() const {
    Tensor view = view_;
    view.device = {Device::cuda, 0};
    return view;
  }

  double get(std::int64_t n, std::int64_t c) const {
    switch (view_.dtype) {
      case Dtype::f32:
        return view_.row<float>(n)[c];
      case Dtype::bf16:
        return static_cast<double>(static_cast<float>(view_.row<bf16>(n)[c]));
      case Dtype::f64:
        return view_.row<double>(n)[c];
      case Dtype::i32:
        return view_.row<std::int32_t>(n)[c];
    }
    return NAN;
  }
  void set(std::int64_t n, std::int64_t c, double value) {
    switch (view_.dtype) {
      case Dtype::f32:
        view_.row<float>(n)[c] = static_cast<float>(value);
        break;
      case Dtype::bf16:
        view_.row<bf16>(n)[c] = bf16(static_cast<float>(value));
        break;
      case Dtype::f64:
        view_.row<double>(n)[c] = value;
        break;
      case Dtype::i32:
        view_.row<std::int32_t>(n)[c] = static_cast<std::int32_t>(value);
        break;
    }
  }
  const std::vector<char>& bytes() const {
    return bytes_;
  }

 private:
  template <class Function>
  void for_each(const Function& function) {
    for (std::int64_t n = 0; n < view_.rows(); ++n)
      for (std::int64_t c = 0; c < view_.cols(); ++c) function(n, c);
  }
  void rebase(const HostTensor& other) {
    view_.data = bytes_.data() + (static_cast<const char*>(other.view_.data) - other.bytes_.data());
  }

  std::vector<char> bytes_;
  Tensor view_;
};

// ‖a − b‖ / ‖b‖; NaN anywhere gives NaN; ‖a‖ where b is 0.
inline double relative_error(const HostTensor& a, const HostTensor& b) {
  double difference = 0, norm = 0;
  for (std::int64_t n = 0; n < b.cpu().rows(); ++n)
    for (std::int64_t c = 0; c < b.cpu().cols(); ++c) {
      difference += (a.get(n, c) - b.get(n, c)) * (a.get(n, c) - b.get(n, c));
      norm += b.get(n, c) * b.get(n, c);
    }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

#define EXPECT_CLOSE(a, b, tolerance) EXPECT_LE(::mst::test::relative_error(a, b), tolerance) << #a << " is not " << #b

}  // namespace mst::test
