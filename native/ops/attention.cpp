// Attention on the CPU, tile by tile; see attention.h. Products of f32 tiles are oneDNN's; bf16 tiles are widened first.
#include "attention.h"

#include <oneapi/dnnl/dnnl.h>

#include <cmath>

#include "../cpu/math.h"
#include "../cpu/parallel.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t queries_per_tile = 128, keys_per_tile = 256;

// c (m,n) = alpha * op(a) · op(b) + beta * c, row-major, on the calling thread.
void tile_product(char trans_a, char trans_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a, std::int64_t lda,
                  const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  dnnl_sgemm(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void tile_product(char trans_a, char trans_b, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
                  std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += (trans_a == 'N' ? a[i * lda + l] : a[l * lda + i]) * (trans_b == 'N' ? b[l * ldb + j] : b[j * ldb + l]);
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
  }
}

// Rows of one head in the compute type.
template <class S>
struct Rows {
  const S* data;
  std::int64_t stride;
};

MST_CLONES void widen(const bf16* from, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
}

// Rows [begin, end) of a head whose first column is given; bf16 is widened into scratch (end - begin, D).
template <class T>
Rows<compute_t<T>> load(const Tensor& tensor, std::int64_t begin, std::int64_t end, std::int64_t column, std::int64_t D,
                        [[maybe_unused]] compute_t<T>* scratch) {
  if constexpr (std::is_same_v<T, bf16>) {
    for (std::int64_t n = begin; n < end; ++n) widen(tensor.row<bf16>(n) + column, scratch + (n - begin) * D, D);
    return {scratch, D};
  } else {
    return {tensor.row<T>(begin) + column, tensor.row_stride};
  }
}

template <class T, class S>
MST_CLONES void store_row(const S* from, S factor, T* to, std::int64_t D) {
  MST_INDEPENDENT
  for (std::int64_t d = 0; d < D; ++d) to[d] = T(from[d] * factor);
}

// What a query sees: keys [first, query], all in rows of N.
struct Mask {
  std::int64_t T, window;
  const std::int32_t* document_start;

  std::int64_t first_key(std::int64_t n) const {
    std::int64_t first = n / T * T;
    if (window > 0) first = std::max(first, n - window + 1);
    if (document_start) first = std::max<std::int64_t>(first, document_start[n]);
    return first;
  }
};

struct Sizes {
  std::int64_t B, T, H, G, D, num_blocks;

  Sizes(const Tensor& q, const Tensor& k, std::int64_t T, std::int64_t D)
      : B(q.rows() / T), T(T), H(q.cols() / D), G(k.cols() / D), D(D), num_blocks((T + queries_per_tile - 1) / queries_per_tile) {}
};

template <class S>
MST_CLONES void cap(S* scores, std::int64_t n, S softcap) {
  for (std::int64_t i = 0; i < n; ++i) scores[i] = softcap * tanh(scores[i] / softcap);
}

// One row of a tile, of which scores [begin, end) count: they become exp(score - max) with the running maximum, the others 0.
// Returns the factor by which what was summed before must shrink.
template <class S>
MST_CLONES S online_softmax_row(S* scores, std::int64_t begin, std::int64_t end, std::int64_t size, S& max, S& sum) {
  std::fill(scores, scores + begin, S(0));
  std::fill(scores + end, scores + size, S(0));
  if (begin == end) return S(1);
  S* const counted = scores + begin;
  const std::int64_t n = end - begin;
  const S largest = lane_max<S>(n, [&](std::int64_t i) { return counted[i]; });
  const S new_max = largest > max ? largest : max;
  const S factor = softmax_exp(max - new_max);
  sum = sum * factor + lane_sum<S>(n, [&](std::int64_t i) { return counted[i] = softmax_exp(counted[i] - new_max); });
  max = new_max;
  return factor;
}

template <class T>
void forward_block(const Tensor& q, const Tensor& k, const Tensor& v, const Mask& mask, const Tensor& out, const Tensor& lse,
                   const Sizes& sizes, std::int64_t b, std::int64_t h, std::int64_t block, compute_t<T>* scratch, double scale,
                   double softcap) {
  using S = compute_t<T>;
  const std::int64_t D = sizes.D, key_column = h / (sizes.H / sizes.G) * D;
  const std::int64_t begin = b * sizes.T + block * queries_per_tile, end = std::min(begin + queries_per_tile, (b + 1) * sizes.T);
  const std::int64_t num_queries = end - begin;
  S* const scores = scratch;
  S* const keys = scores + queries_per_tile * keys_per_tile;
  S* const values = keys + keys_per_tile * D;
  S* const queries = values + keys_per_tile * D;
  S* const sums_of_values = queries + queries_per_tile * D;
  S* const max = sums_of_values + queries_per_tile * D;
  S* const sum = max + queries_per_tile;
  std::fill(sums_of_values, sums_of_values + num_queries * D, S(0));
  std::fill(max, max + num_queries, -S(INFINITY));
  std::fill(sum, sum + num_queries, S(0));
  const Rows<S> q_rows = load<T>(q, begin, end, h * D, D, queries);
  std::int64_t first = end;  // of all queries of the block
  for (std::int64_t n = begin; n < end; ++n) first = std::min(first, mask.first_key(n));
  for (std::int64_t key = first; key < end; key += keys_per_tile) {
    const std::int64_t num_keys = std::min(keys_per_tile, end - key);
    const Rows<S> k_rows = load<T>(k, key, key + num_keys, key_column, D, keys);
    const Rows<S> v_rows = load<T>(v, key, key + num_keys, key_column, D, values);
    tile_product('N', 'T', num_queries, num_keys, D, S(scale), q_rows.data, q_rows.stride, k_rows.data, k_rows.stride, S(0), scores,
                 num_keys);
    if (softcap > 0) cap<S>(scores, num_queries * num_keys, S(softcap));
    for (std::int64_t i = 0; i < num_queries; ++i) {
      const std::int64_t n = begin + i;
      const std::int64_t from = std::clamp<std::int64_t>(mask.first_key(n) - key, 0, num_keys);
      const std::int64_t to = std::clamp<std::int64_t>(n + 1 - key, from, num_keys);
      const S factor = online_softmax_row<S>(scores + i * num_keys, from, to, num_keys, max[i], sum[i]);
      if (factor != S(1)) store_row<S, S>(sums_of_values + i * D, factor, sums_of_values + i * D, D);
    }
    tile_product('N', 'N', num_queries, D, num_keys, S(1), scores, num_keys, v_rows.data, v_rows.stride, S(1), sums_of_values, D);
  }
  S* const lse_row = lse.as<S>() + (b * sizes.H + h) * sizes.T + (begin - b * sizes.T);
  for (std::int64_t i = 0; i < num_queries; ++i) {
    store_row<T, S>(sums_of_values + i * D, S(1) / sum[i], out.row<T>(begin + i) + h * D, D);
    lse_row[i] = max[i] + std::log(sum[i]);
  }
}

// One row of a tile: probabilities from scores, and dscores from dprobabilities (both in place). Those outside [begin, end) become 0.
//   p = exp(score - lse);  ds = p (dp - delta), times 1 - (score / softcap)² where scores are capped
template <bool capped, class S>
MST_CLONES void backward_row(S* scores, S* dprobabilities, std::int64_t begin, std::int64_t end, std::int64_t size, S lse, S delta,
                             S softcap) {
  std::fill(scores, scores + begin, S(0));
  std::fill(scores + end, scores + size, S(0));
  std::fill(dprobabilities, dprobabilities + begin, S(0));
  std::fill(dprobabilities + end, dprobabilities + size, S(0));
  MST_INDEPENDENT
  for (std::int64_t i = begin; i < end; ++i) {
    const S score = scores[i], p = softmax_exp(score - lse);
    S ds = p * (dprobabilities[i] - delta);
    if constexpr (capped) ds *= S(1) - (score / softcap) * (score / softcap);
    scores[i] = p;
    dprobabilities[i] = ds;
  }
}

template <class T, class S>
MST_CLONES S row_dot(const T* a, const T* b, std::int64_t D) {
  return lane_sum<S>(D, [&](std::int64_t d) { return static_cast<S>(a[d]) * static_cast<S>(b[d]); });
}

// All of one key/value head g of sequence b: its query heads, tile by tile. Five products a tile.
template <class T>
void backward_head(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Mask& mask, const Tensor& lse,
                   const compute_t<T>* delta, compute_t<T>* dq, std::int64_t dq_stride, const Tensor& dk, const Tensor& dv,
                   const Sizes& sizes, std::int64_t b, std::int64_t g, compute_t<T>* scratch, double scale, double softcap) {
  using S = compute_t<T>;
  const std::int64_t D = sizes.D, heads_per_group = sizes.H / sizes.G, sequence = b * sizes.T, sequence_end = sequence + sizes.T;
  S* const scores = scratch;
  S* const dprobabilities = scores + queries_per_tile * keys_per_tile;
  S* const dkeys = dprobabilities + queries_per_tile * keys_per_tile;
  S* const dvalues = dkeys + keys_per_tile * D;
  S* const keys = dvalues + keys_per_tile * D;
  S* const values = keys + keys_per_tile * D;
  S* const queries = values + keys_per_tile * D;
  S* const douts = queries + queries_per_tile * D;
  for (std::int64_t key = sequence; key < sequence_end; key += keys_per_tile) {
    const std::int64_t num_keys = std::min(keys_per_tile, sequence_end - key);
    const Rows<S> k_rows = load<T>(k, key, key + num_keys, g * D, D, keys);
    const Rows<S> v_rows = load<T>(v, key, key + num_keys, g * D, D, values);
    std::fill(dkeys, dkeys + num_keys * D, S(0));
    std::fill(dvalues, dvalues + num_keys * D, S(0));
    for (std::int64_t h = g * heads_per_group; h < (g + 1) * heads_per_group; ++h) {
      for (std::int64_t begin = key; begin < sequence_end; begin += queries_per_tile) {
        const std::int64_t end = std::min(begin + queries_per_tile, sequence_end), num_queries = end - begin;
        // first_key never decreases from one query to the next: once it is past this tile, no later query sees the tile.
        if (mask.first_key(begin) >= key + num_keys) break;
        const Rows<S> q_rows = load<T>(q, begin, end, h * D, D, queries);
        const Rows<S> do_rows = load<T>(dout, begin, end, h * D, D, douts);
        tile_product('N', 'T', num_queries, num_keys, D, S(scale), q_rows.data, q_rows.stride, k_rows.data, k_rows.stride, S(0), scores,
                     num_keys);
        if (softcap > 0) cap<S>(scores, num_queries * num_keys, S(softcap));
        tile_product('N', 'T', num_queries, num_keys, D, S(1), do_rows.data, do_rows.stride, v_rows.data, v_rows.stride, S(0),
                     dprobabilities, num_keys);
        const std::int64_t per_query = (b * sizes.H + h) * sizes.T + (begin - sequence);  // into lse and delta
        for (std::int64_t i = 0; i < num_queries; ++i) {
          const std::int64_t n = begin + i;
          const std::int64_t from = std::clamp<std::int64_t>(mask.first_key(n) - key, 0, num_keys);
          const std::int64_t to = std::clamp<std::int64_t>(n + 1 - key, from, num_keys);
          (softcap > 0 ? backward_row<true, S> : backward_row<false, S>)(scores + i * num_keys, dprobabilities + i * num_keys, from, to,
                                                                         num_keys, lse.as<S>()[per_query + i], delta[per_query + i],
                                                                         S(softcap));
        }
        tile_product('T', 'N', num_keys, D, num_queries, S(1), scores, num_keys, do_rows.data, do_rows.stride, S(1), dvalues, D);
        tile_product('T', 'N', num_keys, D, num_queries, S(scale), dprobabilities, num_keys, q_rows.data, q_rows.stride, S(1), dkeys, D);
        tile_product('N', 'N', num_queries, D, num_keys, S(scale), dprobabilities, num_keys, k_rows.data, k_rows.stride, S(1),
                     dq + begin * dq_stride + h * D, dq_stride);
      }
    }
    for (std::int64_t i = 0; i < num_keys; ++i) {
      store_row<T, S>(dkeys + i * D, S(1), dk.row<T>(key + i) + g * D, D);
      store_row<T, S>(dvalues + i * D, S(1), dv.row<T>(key + i) + g * D, D);
    }
  }
}

Mask mask_of(const OptionalTensor& document_start, std::int64_t T, std::int64_t window) {
  return {T, window, document_start ? document_start->as<std::int32_t>() : nullptr};
}

template <class S>
S* workspace_of(const char* op, const Workspace& workspace, std::int64_t num_elements) {
  const std::size_t needed = static_cast<std::size_t>(num_elements) * sizeof(S);
  MST_CHECK(workspace.bytes >= needed, op, ": workspace of ", workspace.bytes, " bytes, needs ", needed);
  return static_cast<S*>(workspace.data);
}

}  // namespace

void attention_forward(Context&, const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& document_start, const Tensor& out,
                       const Tensor& lse, const Workspace& workspace, std::int64_t T, std::int64_t D, double scale, std::int64_t window,
                       double softcap) {
  const Sizes sizes(q, k, T, D);
  const Mask mask = mask_of(document_start, T, window);
  const std::int64_t per_thread =
      queries_per_tile * keys_per_tile + 2 * keys_per_tile * D + 2 * queries_per_tile * D + 2 * queries_per_tile;
  with_float("attention_forward", q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    auto* const scratch = workspace_of<compute_t<E>>("attention_forward", workspace, omp_get_max_threads() * per_thread);
    parallel_tasks(sizes.B * sizes.H * sizes.num_blocks, [&](std::int64_t task, int thread) {
      const std::int64_t block = sizes.num_blocks - 1 - task / (sizes.B * sizes.H), head = task % (sizes.B * sizes.H);  // the longest first
      forward_block<E>(q, k, v, mask, out, lse, sizes, head / sizes.H, head % sizes.H, block, scratch + thread * per_thread, scale,
                       softcap);
    });
  });
}

void attention_backward(Context&, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& document_start, const Tensor& out, const Tensor& lse, const Tensor& dq, const Tensor& dk,
                        const Tensor& dv, const Workspace& workspace, std::int64_t T, std::int64_t D, double scale, std::int64_t window,
                        double softcap) {
  const Sizes sizes(q, k, T, D);
  const Mask mask = mask_of(document_start, T, window);
  const std::int64_t N = q.rows(), width = q.cols(), num_rows = sizes.B * sizes.H * T;
  const std::int64_t per_thread = 2 * queries_per_tile * keys_per_tile + 4 * keys_per_tile * D + 2 * queries_per_tile * D;
  with_float("attention_backward", q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    using S = compute_t<E>;
    constexpr bool is_bf16 = std::is_same_v<E, bf16>;
    const std::int64_t scratch_size = omp_get_max_threads() * per_thread;
    S* const scratch = workspace_of<S>("attention_backward", workspace, scratch_size + num_rows + (is_bf16 ? N * width : 0));
    S* const delta = scratch + scratch_size;  // (B,H,T): dout · out
    S* const dq_sums = is_bf16 ? delta + num_rows : dq.as<S>();
    const std::int64_t dq_stride = is_bf16 ? width : dq.row_stride;
    parallel_for(N, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        std::fill(dq_sums + n * dq_stride, dq_sums + n * dq_stride + width, S(0));
        for (std::int64_t h = 0; h < sizes.H; ++h)
          delta[(n / T * sizes.H + h) * T + n % T] = row_dot<E, S>(dout.row<E>(n) + h * D, out.row<E>(n) + h * D, D);
      }
    });
    parallel_tasks(sizes.B * sizes.G, [&](std::int64_t task, int thread) {
      backward_head<E>(dout, q, k, v, mask, lse, delta, dq_sums, dq_stride, dk, dv, sizes, task / sizes.G, task % sizes.G,
                       scratch + thread * per_thread, scale, softcap);
    });
    if constexpr (is_bf16) {
      parallel_for(N, 16, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) store_row<E, S>(dq_sums + n * width, S(1), dq.row<E>(n), width);
      });
    }
  });
}

}  // namespace mst::cpu
