// Soft-capping of scores; see softcap.h.
#include "softcap.h"

#include <cmath>

#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t grain = 4096;  // elements worth a thread

template <class Row>
void for_rows(const Tensor& y, const Row& row) {
  parallel_for(y.rows(), grain / (y.cols() + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) row(n);
  });
}

}  // namespace

void softcap_forward(Context&, const Tensor& x, const Tensor& y, double cap) {
  check_softcap_forward(x, y);
  with_float("softcap_forward", x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    for_rows(y, [&](std::int64_t n) {
      const T* const from = x.row<T>(n);
      T* const to = y.row<T>(n);
      for (std::int64_t c = 0; c < y.cols(); ++c) to[c] = T(S(cap) * std::tanh(static_cast<S>(from[c]) / S(cap)));
    });
  });
}

void softcap_backward(Context&, const Tensor& dy, const Tensor& y, const Tensor& dx, double cap) {
  check_softcap_backward(dy, y, dx);
  with_float("softcap_backward", y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    for_rows(y, [&](std::int64_t n) {
      for (std::int64_t c = 0; c < y.cols(); ++c) {
        const S tanh = static_cast<S>(y.row<T>(n)[c]) / S(cap);
        dx.row<T>(n)[c] = T(static_cast<S>(dy.row<T>(n)[c]) * (S(1) - tanh * tanh));
      }
    });
  });
}

}  // namespace mst::cpu
