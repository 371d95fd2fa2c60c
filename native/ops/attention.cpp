// Attention on the CPU, tile by tile; see attention.h. oneDNN multiplies f32 tiles; bf16 tiles are widened first.
#include "attention.h"

#include <oneapi/dnnl/dnnl.h>

#include <cmath>

#include "../cpu/math.h"
#include "../cpu/parallel.h"
#include "contract.h"

namespace mst::cpu {
namespace {

constexpr std::int64_t queries_per_tile = 128, keys_per_tile = 256;

// The rows of a matrix, often of one head, in the compute type.
template <class S>
struct Rows {
  const S* data;
  std::int64_t stride;
};

struct Extent {
  std::int64_t m, n, k;
};

// c (m,n) = alpha * op(a) · op(b) + beta * c, row-major, on the calling thread.
void tile_product(char trans_a, char trans_b, const Extent& e, float alpha, const Rows<float>& a, const Rows<float>& b, float beta,
                  float* c, std::int64_t ldc) {
  dnnl_sgemm(trans_a, trans_b, e.m, e.n, e.k, alpha, a.data, a.stride, b.data, b.stride, beta, c, ldc);
}
void tile_product(char trans_a, char trans_b, const Extent& e, double alpha, const Rows<double>& a, const Rows<double>& b, double beta,
                  double* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < e.m; ++i) {
    for (std::int64_t j = 0; j < e.n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < e.k; ++l)
        sum += (trans_a == 'N' ? a.data[i * a.stride + l] : a.data[l * a.stride + i]) *
               (trans_b == 'N' ? b.data[l * b.stride + j] : b.data[j * b.stride + l]);
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
  }
}

MST_CLONES void widen(const bf16* from, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
}

// Loads rows [begin, end) of the head whose first column is given. bf16 is widened into scratch (end - begin, D).
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

template <class S>
MST_CLONES void cap(S* scores, std::int64_t n, S softcap) {
  for (std::int64_t i = 0; i < n; ++i) scores[i] = softcap * tanh(scores[i] / softcap);
}

// Softmax of one row of a tile. Scores [begin, end) become exp(score - max) with the running maximum, all others 0. Returns the factor for
// the sums over earlier tiles.
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

// What all tiles of a call have in common.
struct Call {
  const AttentionInputs& inputs;
  const AttentionGeometry& geometry;
  double scale, softcap;
};

// The forward of queries [begin, end) of head h.
template <class T>
void forward_block(const Call& call, const Tensor& out, const Tensor& lse, std::int64_t h, std::int64_t begin, std::int64_t end,
                   compute_t<T>* scratch) {
  using S = compute_t<T>;
  const auto& [inputs, g, scale, softcap] = call;
  const auto& [q, k, v, document_start] = inputs;
  const std::int64_t D = g.D, key_column = h / (g.H / g.G) * D, num_queries = end - begin;
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
  std::int64_t first = end;  // the first key that any query of the block sees
  for (std::int64_t n = begin; n < end; ++n) first = std::min(first, g.first_key(n));
  for (std::int64_t key = first; key < end; key += keys_per_tile) {
    const std::int64_t num_keys = std::min(keys_per_tile, end - key);
    const Rows<S> k_rows = load<T>(k, key, key + num_keys, key_column, D, keys);
    const Rows<S> v_rows = load<T>(v, key, key + num_keys, key_column, D, values);
    tile_product('N', 'T', {num_queries, num_keys, D}, S(scale), q_rows, k_rows, S(0), scores, num_keys);
    if (softcap > 0) cap<S>(scores, num_queries * num_keys, S(softcap));
    for (std::int64_t i = 0; i < num_queries; ++i) {
      const std::int64_t n = begin + i;
      const std::int64_t from = std::clamp<std::int64_t>(g.first_key(n) - key, 0, num_keys);
      const std::int64_t to = std::clamp<std::int64_t>(n + 1 - key, from, num_keys);
      const S factor = online_softmax_row<S>(scores + i * num_keys, from, to, num_keys, max[i], sum[i]);
      if (factor != S(1)) store_row<S, S>(sums_of_values + i * D, factor, sums_of_values + i * D, D);
    }
    tile_product('N', 'N', {num_queries, D, num_keys}, S(1), Rows<S>{scores, num_keys}, v_rows, S(1), sums_of_values, D);
  }
  S* const lse_row = lse.as<S>() + (begin / g.T * g.H + h) * g.T + begin % g.T;
  for (std::int64_t i = 0; i < num_queries; ++i) {
    store_row<T, S>(sums_of_values + i * D, S(1) / sum[i], out.row<T>(begin + i) + h * D, D);
    lse_row[i] = max[i] + std::log(sum[i]);
  }
}

// The backward of one row of a tile, in place: scores become probabilities, dprobabilities become dscores. Those outside [begin, end)
// become 0.
//   p = exp(score - lse);  ds = p (dp - delta), times 1 - (score / softcap)² if scores are capped
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

// delta (B,H,T) = Σ_d dout · out; dq (N,H·D), which is accumulated.
template <class S>
struct BackwardSums {
  const S* delta;
  S* dq;
  std::int64_t dq_stride;
};

// The backward of one key/value head of sequence b: goes through its query heads tile by tile, with five products per tile.
template <class T>
void backward_head(const Call& call, const Tensor& dout, const Tensor& lse, const BackwardSums<compute_t<T>>& sums,
                   const AttentionGradients& gradients, std::int64_t b, std::int64_t group, compute_t<T>* scratch) {
  using S = compute_t<T>;
  const auto& [inputs, g, scale, softcap] = call;
  const auto& [q, k, v, document_start] = inputs;
  const auto& [delta, dq, dq_stride] = sums;
  const std::int64_t D = g.D, heads_per_group = g.H / g.G, sequence = b * g.T, sequence_end = sequence + g.T;
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
    const Rows<S> k_rows = load<T>(k, key, key + num_keys, group * D, D, keys);
    const Rows<S> v_rows = load<T>(v, key, key + num_keys, group * D, D, values);
    std::fill(dkeys, dkeys + num_keys * D, S(0));
    std::fill(dvalues, dvalues + num_keys * D, S(0));
    for (std::int64_t h = group * heads_per_group; h < (group + 1) * heads_per_group; ++h) {
      for (std::int64_t begin = key; begin < sequence_end; begin += queries_per_tile) {
        const std::int64_t end = std::min(begin + queries_per_tile, sequence_end), num_queries = end - begin;
        // first_key never decreases from one query to the next: once it is past this tile, no later query sees the tile.
        if (g.first_key(begin) >= key + num_keys) break;
        const Rows<S> q_rows = load<T>(q, begin, end, h * D, D, queries);
        const Rows<S> do_rows = load<T>(dout, begin, end, h * D, D, douts);
        tile_product('N', 'T', {num_queries, num_keys, D}, S(scale), q_rows, k_rows, S(0), scores, num_keys);
        if (softcap > 0) cap<S>(scores, num_queries * num_keys, S(softcap));
        tile_product('N', 'T', {num_queries, num_keys, D}, S(1), do_rows, v_rows, S(0), dprobabilities, num_keys);
        const std::int64_t per_query = (b * g.H + h) * g.T + (begin - sequence);  // index into lse and delta
        for (std::int64_t i = 0; i < num_queries; ++i) {
          const std::int64_t n = begin + i;
          const std::int64_t from = std::clamp<std::int64_t>(g.first_key(n) - key, 0, num_keys);
          const std::int64_t to = std::clamp<std::int64_t>(n + 1 - key, from, num_keys);
          (softcap > 0 ? backward_row<true, S> : backward_row<false, S>)(scores + i * num_keys, dprobabilities + i * num_keys, from, to,
                                                                         num_keys, lse.as<S>()[per_query + i], delta[per_query + i],
                                                                         S(softcap));
        }
        const Rows<S> p_rows{scores, num_keys}, ds_rows{dprobabilities, num_keys};
        tile_product('T', 'N', {num_keys, D, num_queries}, S(1), p_rows, do_rows, S(1), dvalues, D);
        tile_product('T', 'N', {num_keys, D, num_queries}, S(scale), ds_rows, q_rows, S(1), dkeys, D);
        tile_product('N', 'N', {num_queries, D, num_keys}, S(scale), ds_rows, k_rows, S(1), dq + begin * dq_stride + h * D, dq_stride);
      }
    }
    for (std::int64_t i = 0; i < num_keys; ++i) {
      store_row<T, S>(dkeys + i * D, S(1), gradients.dk.row<T>(key + i) + group * D, D);
      store_row<T, S>(dvalues + i * D, S(1), gradients.dv.row<T>(key + i) + group * D, D);
    }
  }
}

template <class S>
S* workspace_of(const char* op, const Workspace& workspace, std::int64_t num_elements) {
  require_workspace(op, workspace, static_cast<std::size_t>(num_elements) * sizeof(S));
  return static_cast<S*>(workspace.data);
}

}  // namespace

void attention_forward(Context&, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
                       const AttentionOptions& options) {
  const AttentionGeometry g = check_attention("attention_forward", inputs, out, lse, options);
  const Call call{inputs, g, options.scale, options.softcap};
  const std::int64_t per_thread =
      queries_per_tile * keys_per_tile + 2 * keys_per_tile * g.D + 2 * queries_per_tile * g.D + 2 * queries_per_tile;
  with_float("attention_forward", inputs.q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    auto* const scratch = workspace_of<compute_t<E>>("attention_forward", workspace, omp_get_max_threads() * per_thread);
    const std::int64_t num_heads = g.N / g.T * g.H, num_blocks = (g.T + queries_per_tile - 1) / queries_per_tile;
    parallel_tasks(num_heads * num_blocks, [&](std::int64_t task, int thread) {
      const std::int64_t block = num_blocks - 1 - task / num_heads, head = task % num_heads;  // blocks with the most keys first
      const std::int64_t sequence = head / g.H * g.T, begin = block * queries_per_tile;
      forward_block<E>(call, out, lse, head % g.H, sequence + begin, sequence + std::min(begin + queries_per_tile, g.T),
                       scratch + thread * per_thread);
    });
  });
}

void attention_backward(Context&, const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                        const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options) {
  const AttentionGeometry g = check_attention("attention_backward", inputs, out, lse, options);
  check_attention_gradients(dout, inputs, gradients);
  const Call call{inputs, g, options.scale, options.softcap};
  const Tensor& dq = gradients.dq;
  const std::int64_t N = g.N, T = g.T, D = g.D, width = g.H * D, num_rows = N * g.H;
  const std::int64_t per_thread = 2 * queries_per_tile * keys_per_tile + 4 * keys_per_tile * D + 2 * queries_per_tile * D;
  with_float("attention_backward", inputs.q.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    using S = compute_t<E>;
    constexpr bool is_bf16 = std::is_same_v<E, bf16>;
    const std::int64_t scratch_size = omp_get_max_threads() * per_thread;
    S* const scratch = workspace_of<S>("attention_backward", workspace, scratch_size + num_rows + (is_bf16 ? N * width : 0));
    S* const delta = scratch + scratch_size;
    const BackwardSums<S> sums{delta, is_bf16 ? delta + num_rows : dq.as<S>(), is_bf16 ? width : dq.row_stride};
    parallel_for(N, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        std::fill(sums.dq + n * sums.dq_stride, sums.dq + n * sums.dq_stride + width, S(0));
        for (std::int64_t h = 0; h < g.H; ++h)
          delta[(n / T * g.H + h) * T + n % T] = row_dot<E, S>(dout.row<E>(n) + h * D, out.row<E>(n) + h * D, D);
      }
    });
    parallel_tasks(N / T * g.G, [&](std::int64_t task, int thread) {
      backward_head<E>(call, dout, lse, sums, gradients, task / g.G, task % g.G, scratch + thread * per_thread);
    });
    if constexpr (is_bf16) {
      parallel_for(N, 16, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) store_row<E, S>(sums.dq + n * width, S(1), dq.row<E>(n), width);
      });
    }
  });
}

}  // namespace mst::cpu
