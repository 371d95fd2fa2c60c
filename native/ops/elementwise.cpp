// Element by element; see elementwise.h.
#include "elementwise.h"

#include <cstdint>

#include "../cpu/parallel.h"
#include "../cpu/vectorize.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t grain = 16384;  // elements worth a thread

// Calls row(n, begin, end) for ranges of columns of each row, in parallel. Contiguous tensors are treated as one row.
template <class Row>
void for_rows(const Tensor& y, bool all_contiguous, const Row& row) {
  if (all_contiguous) return parallel_for(y.size(), grain, [&](std::int64_t begin, std::int64_t end) { row(0, begin, end); });
  const std::int64_t cols = y.cols();
  parallel_for(y.rows(), grain / (cols + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) row(n, 0, cols);
  });
}

template <class T, class S>
MST_CLONES void add_row(const T* a, const T* b, T* y, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) y[i] = T(static_cast<S>(a[i]) + static_cast<S>(b[i]));
}

template <class T, class U, class S>
MST_CLONES void add_to_row(const T* x, U* y, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) y[i] = U(static_cast<S>(y[i]) + static_cast<S>(x[i]));
}

template <class T, class S>
MST_CLONES void scale_row(const T* x, T* y, S factor, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) y[i] = T(static_cast<S>(x[i]) * factor);
}

template <class T, class U>
MST_CLONES void cast_row(const T* x, U* y, std::int64_t n) {
  MST_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) y[i] = U(static_cast<compute_t<T>>(x[i]));
}

template <class T>
void fill_as(const Tensor& y, double value) {
  for_rows(y, y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y.row<T>(n)[i] = T(value);
  });
}

}  // namespace

void add(Context&, const Tensor& a, const Tensor& b, const Tensor& y) {
  check_add(a, b, y);
  with_float("add", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_rows(y, a.is_contiguous() && b.is_contiguous() && y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      add_row<T, compute_t<T>>(a.row<T>(n) + begin, b.row<T>(n) + begin, y.row<T>(n) + begin, end - begin);
    });
  });
}

void add_to(Context&, const Tensor& x, const Tensor& y) {
  check_add_to(x, y);
  const auto run = [&](auto from, auto to) {
    using T = typename decltype(from)::type;
    using U = typename decltype(to)::type;
    for_rows(y, x.is_contiguous() && y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      add_to_row<T, U, compute_t<T>>(x.row<T>(n) + begin, y.row<U>(n) + begin, end - begin);
    });
  };
  if (x.dtype == Dtype::bf16 && y.dtype == Dtype::f32) return run(type_tag<bf16>{}, type_tag<float>{});
  if (x.dtype == Dtype::f32 && y.dtype == Dtype::bf16) return run(type_tag<float>{}, type_tag<bf16>{});
  with_float("add_to", x.dtype, [&](auto tag) { run(tag, tag); });
}

void scale(Context&, const Tensor& x, const Tensor& y, double factor) {
  check_scale(x, y);
  with_float("scale", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    for_rows(y, x.is_contiguous() && y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      scale_row<T, S>(x.row<T>(n) + begin, y.row<T>(n) + begin, static_cast<S>(factor), end - begin);
    });
  });
}

void scale_by(Context& context, const Tensor& x, const Tensor& factor, const OptionalTensor& divisor, const Tensor& y) {
  check_scale_by(x, factor, divisor, y);
  with_float("scale_by", factor.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const double quotient = static_cast<double>(factor.as<S>()[0]) / (divisor ? static_cast<double>(divisor->as<S>()[0]) : 1.0);
    scale(context, x, y, quotient);
  });
}

void cast(Context&, const Tensor& x, const Tensor& y) {
  check_cast(x, y);
  const auto run = [&](auto from, auto to) {
    using T = typename decltype(from)::type;
    using U = typename decltype(to)::type;
    for_rows(y, x.is_contiguous() && y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      cast_row<T, U>(x.row<T>(n) + begin, y.row<U>(n) + begin, end - begin);
    });
  };
  if (x.dtype == Dtype::i32) {
    return for_rows(y, x.is_contiguous() && y.is_contiguous(), [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      std::copy(x.row<std::int32_t>(n) + begin, x.row<std::int32_t>(n) + end, y.row<std::int32_t>(n) + begin);
    });
  }
  with_float("cast", x.dtype, [&](auto from) { with_float("cast", y.dtype, [&](auto to) { run(from, to); }); });
}

void fill(Context&, const Tensor& y, double value) {
  if (y.dtype == Dtype::i32) return fill_as<std::int32_t>(y, value);
  if (y.dtype == Dtype::u8) return fill_as<std::uint8_t>(y, value);
  with_float("fill", y.dtype, [&](auto tag) { fill_as<typename decltype(tag)::type>(y, value); });
}

}  // namespace mst::cpu
