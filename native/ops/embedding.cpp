// Looks up rows of a table by id; see embedding.h.
#include "embedding.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

void check_id(const char* op, std::int64_t row, std::int32_t id, std::int64_t V) {
  MST_CHECK(id >= 0 && id < V, op, ": row ", row, " holds id ", id, ", outside [0, ", V, ")");
}

}  // namespace

void embedding_forward(Context&, const Tensor& weight, const Tensor& ids, const Tensor& y) {
  check_embedding_forward(weight, ids, y);
  const std::int64_t V = weight.rows(), N = ids.size(), row_bytes = weight.cols() * static_cast<std::int64_t>(size_of(weight.dtype));
  for (std::int64_t n = 0; n < N; ++n) check_id("embedding_forward", n, ids.as<std::int32_t>()[n], V);
  parallel_for(N, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int32_t id = ids.as<std::int32_t>()[n];
      std::memcpy(y.slice_rows(n, n + 1).data, weight.slice_rows(id, id + 1).data, static_cast<std::size_t>(row_bytes));
    }
  });
}

void embedding_backward(Context&, const Tensor& dy, const Tensor& ids, const Tensor& dweight, const Workspace& workspace) {
  check_embedding_backward(dy, ids, dweight);
  const std::int64_t V = dweight.rows(), C = dweight.cols(), N = ids.size();
  const std::int32_t* const id_of = ids.as<std::int32_t>();
  for (std::int64_t n = 0; n < N; ++n) check_id("embedding_backward", n, id_of[n], V);
  require_workspace("embedding_backward", workspace, sizeof(std::int32_t) * static_cast<std::size_t>(N));
  std::int32_t* const tokens = static_cast<std::int32_t*>(workspace.data);  // sorted by id; those of one id in order
  std::int32_t* const end = tokens + N;
  std::iota(tokens, end, 0);
  std::sort(tokens, end, [&](std::int32_t a, std::int32_t b) { return std::pair(id_of[a], a) < std::pair(id_of[b], b); });
  with_float("embedding_backward", dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = compute_t<T>;
    with_gradient<S>("embedding_backward", dweight.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      // Threads share the columns, so that each row's tokens are added in order for any number of threads.
      constexpr std::int64_t slab = 256;
      parallel_for((C + slab - 1) / slab, 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t begin = first * slab; begin < std::min(last * slab, C); begin += slab) {
          std::array<S, slab> sums;
          const std::int64_t cols = std::min(slab, C - begin);
          for (const std::int32_t* token = tokens; token != end;) {
            const std::int32_t id = id_of[*token];
            G* const to = dweight.row<G>(id) + begin;
            std::copy(to, to + cols, sums.begin());
            for (; token != end && id_of[*token] == id; ++token) {
              const T* const from = dy.row<T>(*token) + begin;
              for (std::int64_t c = 0; c < cols; ++c) sums[c] += static_cast<S>(from[c]);
            }
            for (std::int64_t c = 0; c < cols; ++c) to[c] = G(sums[c]);
          }
        }
      });
    });
  });
}

}  // namespace mst::cpu
