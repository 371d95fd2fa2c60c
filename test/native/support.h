// Tensors for native tests, on the CPU and as cuda:: ops see them: rounded random contents, gaps between rows, comparison.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "cpu/context.h"
#include "cuda/common/launch.h"
#include "runtime/tensor.h"

namespace mst::test {

// Of cpu:: ops, which run on as many threads as OpenMP takes.
inline cpu::Context& cpu_context() {
  static cpu::Context context(1);
  return context;
}

// ---- The device of cuda:: ops: emulation/device.cpp, where its memory is the host's, or gpu/device.cu

cuda::Context& cuda_context();

// Memory of `bytes` bytes that stands for `host`; copied there where `is_written`, else as it was.
void* device_memory(const char* host, std::size_t bytes, bool is_written);
// Copies `rows` rows of `width` bytes, `pitch` bytes apart, when all ops so far have run.
void copy_to_host(char* host, const char* device, std::size_t pitch, std::size_t width, std::size_t rows);
void free_device_memory(void* device);
// What a kernel has noted of an id out of range, in the order of cuda/status.h; all 0 from then on.
std::array<long long, 4> take_status();
// Orders of threads to test in, as run_reversed() takes them: both where they are emulated, one on a GPU.
std::vector<bool> orders();
// Whether the last block, warp and lane run first. No effect on a GPU.
void run_reversed(bool reversed);
// What a block may have; a GPU has what it has.
void give_shared_memory(std::size_t bytes);
// How many blocks a cluster may have; a GPU has what it has.
void give_clusters(unsigned size);

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
  HostTensor(const HostTensor& other) : bytes_(other.host_bytes()), view_(other.view_), newest_(other.newest_) {
    view_.data = bytes_.data() + (static_cast<const char*>(other.view_.data) - other.bytes_.data());
  }
  HostTensor& operator=(const HostTensor&) = delete;
  ~HostTensor() {
    if (device_) free_device_memory(device_);
  }

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

  // The view, for ops of either device, which may write it.
  const Tensor& cpu() const {
    host_bytes();
    newest_ = Newest::host;
    return view_;
  }
  Tensor cuda() const {
    if (newest_ == Newest::host || !device_) {
      if (device_) free_device_memory(device_);
      device_ = device_memory(bytes_.data(), bytes_.size(), newest_ != Newest::neither);
    }
    newest_ = Newest::device;
    Tensor view = view_;
    view.data = device_data();
    return view;
  }

  double get(std::int64_t n, std::int64_t c) const {
    host_bytes();
    switch (view_.dtype) {
      case Dtype::f32:
        return view_.row<float>(n)[c];
      case Dtype::bf16:
        return static_cast<double>(static_cast<float>(view_.row<bf16>(n)[c]));
      case Dtype::f64:
        return view_.row<double>(n)[c];
      case Dtype::i32:
        return view_.row<std::int32_t>(n)[c];
      case Dtype::u8:
        return view_.row<std::uint8_t>(n)[c];
    }
    return NAN;
  }
  void set(std::int64_t n, std::int64_t c, double value) {
    host_bytes();
    newest_ = Newest::host;
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
      case Dtype::u8:
        view_.row<std::uint8_t>(n)[c] = static_cast<std::uint8_t>(value);
        break;
    }
  }
  const std::vector<char>& bytes() const {
    return host_bytes();
  }
  Dtype dtype() const {
    return view_.dtype;
  }
  std::int64_t rows() const {
    return view_.rows();
  }
  std::int64_t cols() const {
    return view_.cols();
  }

 private:
  enum class Newest { neither, host, device, both };  // neither: nobody has written

  char* device_data() const {
    return static_cast<char*>(device_) + (static_cast<const char*>(view_.data) - bytes_.data());
  }
  std::vector<char>& host_bytes() const {
    if (newest_ == Newest::device) {
      const std::size_t size = size_of(view_.dtype);
      copy_to_host(static_cast<char*>(view_.data), device_data(), static_cast<std::size_t>(view_.row_stride) * size,
                   static_cast<std::size_t>(cols()) * size, static_cast<std::size_t>(rows()));  // not the gaps, which nothing wrote
      newest_ = Newest::both;
    }
    return bytes_;
  }
  template <class Function>
  void for_each(const Function& function) {
    for (std::int64_t n = 0; n < view_.rows(); ++n)
      for (std::int64_t c = 0; c < view_.cols(); ++c) function(n, c);
  }

  mutable std::vector<char> bytes_;
  Tensor view_;
  mutable void* device_ = nullptr;
  mutable Newest newest_ = Newest::neither;
};

// ‖a − b‖ / ‖b‖; NaN anywhere gives NaN; ‖a‖ where b is 0.
inline double relative_error(const HostTensor& a, const HostTensor& b) {
  double difference = 0, norm = 0;
  for (std::int64_t n = 0; n < b.rows(); ++n)
    for (std::int64_t c = 0; c < b.cols(); ++c) {
      difference += (a.get(n, c) - b.get(n, c)) * (a.get(n, c) - b.get(n, c));
      norm += b.get(n, c) * b.get(n, c);
    }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

#define EXPECT_CLOSE(a, b, tolerance) EXPECT_LE(::mst::test::relative_error(a, b), tolerance) << #a << " is not " << #b

// Where an op that both devices run takes its tensors.
inline constexpr auto on_cpu = [](const HostTensor& tensor) { return tensor.cpu(); };
inline constexpr auto on_cuda = [](const HostTensor& tensor) { return tensor.cuda(); };

inline Workspace workspace_of(const Tensor& scratch) {
  return {scratch.data, static_cast<std::size_t>(scratch.rows() * scratch.cols()) * size_of(scratch.dtype)};
}

}  // namespace mst::test
