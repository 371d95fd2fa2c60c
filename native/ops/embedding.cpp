// Rows of a table by id; see embedding.h.
#include "embedding.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

void check_id(const char* op, std::int64_t row, std::int32_t id, std::int64_t V) {
  MST_CHECK(id >= 0 && id < V, op, ": row ", row, " holds id ", id, ", outside [0, ", V, ")");
}

}  // namespace

void embedding_forward(const Tensor& weight, const Tensor& ids, const Tensor& y) {
  const std::int64_t V = weight.rows(), N = ids.size(), row_bytes = weight.cols() * static_cast<std::int64_t>(size_of(weight.dtype));
  for (std::int64_t n = 0; n < N; ++n) check_id("embedding_forward", n, ids.as<std::int32_t>()[n], V);
  parallel_for(N, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int32_t id = ids.as<std::int32_t>()[n];
      std::memcpy(y.slice_rows(n, n + 1).data, weight.slice_rows(id, id + 1).data, static_cast<std::size_t>(row_bytes));
    }
  });
}

void embedding_backward(const Tensor& dy, const Tensor& ids, const Tensor& dweight) {
  const std::int64_t V = dweight.rows(), C = dweight.cols(), N = ids.size();
  const std::int32_t* const id_of = ids.as<std::int32_t>();
  for (std::int64_t n = 0; n < N; ++n) check_id("embedding_backward", n, id_of[n], V);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(N));  // those of an id together, in order
  std::iota(tokens.begin(), tokens.end(), std::int64_t{0});
  std::stable_sort(tokens.begin(), tokens.end(), [&](std::int64_t a, std::int64_t b) { return id_of[a] < id_of[b]; });
  with_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    with_gradient<S>("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      // Threads share out the columns: each row's tokens are added in order, whatever the number of threads.
      parallel_for(C, 16, [&](std::int64_t begin, std::int64_t end) {
        std::vector<S> sums(static_cast<std::size_t>(end - begin));
        for (auto token = tokens.begin(); token != tokens.end();) {
          const std::int32_t id = id_of[*token];
          G* const to = dweight.row<G>(id) + begin;
          std::copy(to, to + sums.size(), sums.begin());
          for (; token != tokens.end() && id_of[*token] == id; ++token) {
            const T* const from = dy.row<T>(*token) + begin;
            for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += static_cast<S>(from[c]);
          }
          for (std::size_t c = 0; c < sums.size(); ++c) to[c] = G(sums[c]);
        }
      });
    });
  });
}

}  // namespace mst::cpu
