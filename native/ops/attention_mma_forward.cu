// The forward of attention on tensor cores; see attention_mma.h. A block owns queries; a tile of scores takes two products.
#include "attention_mma.h"
#include "attention_mma_tiles.h"

namespace mst::cuda {
namespace {

constexpr int forward_keys = 64;

// Grid: query tiles of a sequence, for each of B·H heads.
template <int steps, int R>
__global__ void __launch_bounds__(threads_of_queries, 2)
    mma_attention_forward_kernel(Heads<const Element> q, Heads<const Element> k, Heads<const Element> v, Heads<Element> out, float* lse,
                                 Geometry g) {
  constexpr int rows = owned_queries<R>, columns = forward_keys;
  DYNAMIC_SHARED(Element, shared);
  const Tile<steps> queries{shared}, keys{queries.at(rows, 0)}, values{keys.at(columns, 0)};
  const Queries<R, rows> own(g);
  const std::int64_t end = own.sequence + own.end;
  int first_seen[R][2];
#pragma unroll
  for (int r = 0; r < R; ++r)
    for (int half = 0; half < 2; ++half) first_seen[r][half] = g.first_position(own.sequence, own.row_within(r, half));
  const int first = g.first_position(own.sequence, own.begin);

  queries.template load<rows, threads_of_queries>(q, own.sequence + own.begin, end, own.h);
  keys.template load<columns, threads_of_queries>(k, own.sequence + first, end, own.group);
  commit_copies();
  const Scores scale(g);
  float sums[R][2 * steps][4] = {}, max[R][2], sum[R][2] = {};  // max: of capped products
#pragma unroll
  for (int r = 0; r < R; ++r) max[r][0] = max[r][1] = -INFINITY;
  for (int key = first; key < own.end; key += columns) {
    wait_for_copies<0>();
    __syncthreads();  // the keys have arrived, and all threads have read the values of the previous tile
    values.template load<columns, threads_of_queries>(v, own.sequence + key, end, own.group);
    commit_copies();
    float scores[R][columns / 8][4];
    multiply_rows(queries, own.first_of_warp, keys, 0, scores);
    wait_for_copies<0>();
    __syncthreads();  // the values have arrived, and all threads have read the keys
    if (key + columns < own.end) {
      keys.template load<columns, threads_of_queries>(k, own.sequence + key + columns, end, own.group);
      commit_copies();
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (scale.softcap > 0) {
#pragma unroll
          for (int j = 0; j < columns / 8; ++j)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) scores[r][j][i] = scale.capped(scores[r][j][i]);
        }
        const Columns seen = own.seen(first_seen[r][half], r, half, key);
        if (!seen.have_all(columns)) {
#pragma unroll
          for (int j = 0; j < columns / 8; ++j)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i)
              if (!seen.have(column_of(j, i))) scores[r][j][i] = -INFINITY;
        }
        float largest = max[r][half];
#pragma unroll
        for (int j = 0; j < columns / 8; ++j) largest = fmaxf(largest, fmaxf(scores[r][j][2 * half], scores[r][j][2 * half + 1]));
        largest = row_max(largest);
        const float shift = largest == -INFINITY ? 0.0f : largest * scale.factor;  // so far the row has seen no key
        const float shrink = scale.exp(max[r][half], shift);
        float added = 0;
#pragma unroll
        for (int j = 0; j < columns / 8; ++j)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            scores[r][j][i] = scale.exp(scores[r][j][i], shift);
            added += scores[r][j][i];
          }
        sum[r][half] = sum[r][half] * shrink + added;
        max[r][half] = largest;
#pragma unroll
        for (int j = 0; j < 2 * steps; ++j)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) sums[r][j][i] *= shrink;
      }
    multiply_add(scores, values, sums);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = row_sum(sum[r][half]);
      factors[half] = 1.0f / total;
      const int n = own.row(r, half);
      if (threadIdx.x % 4 == 0 && n < own.end) lse[own.statistics + n] = (max[r][half] * scale.factor + log2f(total)) * ln_2;
    }
    store(sums[r], factors, out, own.sequence + own.begin + own.first_of_warp + 16 * r, end, own.h, 0, 16 * steps);
  }
}

}  // namespace

void mma_attention_forward(Context& context, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Geometry& g) {
  with_steps(g.D, [&](auto steps) {
    constexpr int n = decltype(steps)::value, R = row_tiles<n>, rows = owned_queries<R>;
    launch(context, mma_attention_forward_kernel<n, R>, grid_of(g, g.H, rows), threads_of_queries, Tile<n>::bytes(rows + 2 * forward_keys),
           heads<const Element>(inputs.q), heads<const Element>(inputs.k), heads<const Element>(inputs.v), heads<Element>(out),
           lse.as<float>(), g);
  });
}

}  // namespace mst::cuda
