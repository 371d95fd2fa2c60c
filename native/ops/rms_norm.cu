// Root mean square normalisation; see rms_norm.h.
#include "rms_norm.h"

#include <algorithm>

#include "../cuda/common/partials.h"
#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

// ---- Rows of vectors

// The threads that share a row: `lanes` lanes of a warp if rows are short, otherwise the whole block.
constexpr int whole_block = 0, lanes_of_short_rows = 8, threads_of_short_rows = 256;
template <int lanes>
struct Team {
  static constexpr int teams_of_block = lanes == whole_block ? 1 : threads_of_short_rows / lanes;

  __device__ static int size() {
    return lanes == whole_block ? static_cast<int>(blockDim.x) : lanes;
  }
  __device__ static int index_in_block() {
    return lanes == whole_block ? 0 : static_cast<int>(threadIdx.x) / size();
  }
  __device__ static int rank() {
    return static_cast<int>(threadIdx.x) - index_in_block() * size();
  }
  template <int n>
  __device__ static void sum(float (&values)[n]) {
    if constexpr (lanes == whole_block) {
      block_sums(values);
    } else {
#pragma unroll
      for (float& value : values) value = warp_reduce<Sum, lanes>(value);
    }
  }
};

constexpr int max_threads = 512;
// Vectors of a row that a thread holds: enough to read a row once, few enough to leave registers for the backward's sums.
constexpr int forward_held = 4, backward_held = 2;

// A thread's vectors of a row.
template <class T, int width, int held>
struct Share {
  Vector<T, width> vectors[held];

  template <class TeamOfRow>
  __device__ void load(const T* row, std::int64_t C) {
#pragma unroll
    for (int j = 0; j < held; ++j) {
      const std::int64_t c = column<TeamOfRow>(j);
      vectors[j] = c < C ? load_vector<width>(row + c) : Vector<T, width>{};
    }
  }
  template <class TeamOfRow>
  __device__ static std::int64_t column(int j) {
    return (std::int64_t(j) * TeamOfRow::size() + TeamOfRow::rank()) * width;
  }
  __device__ float at(int j, int i) const {
    return vectors[j].at(i);
  }
};

template <class TeamOfRow, int width, class T, class W>
__global__ void __launch_bounds__(max_threads)
    rms_norm_forward_kernel(const T* x, const W* weight, T* y, std::int64_t N, std::int64_t C, std::int64_t x_stride, std::int64_t y_stride,
                            float eps, float weight_offset) {
  constexpr int held = forward_held;
  constexpr std::int64_t teams = TeamOfRow::teams_of_block;
  for (std::int64_t n = blockIdx.x * teams + TeamOfRow::index_in_block(); n < N; n += gridDim.x * teams) {
    Share<T, width, held> row;
    row.template load<TeamOfRow>(x + n * x_stride, C);
    float squares[1] = {};
#pragma unroll
    for (int j = 0; j < held; ++j)
#pragma unroll
      for (int i = 0; i < width; ++i) squares[0] += row.at(j, i) * row.at(j, i);
    TeamOfRow::sum(squares);
    const float r = rsqrtf(squares[0] / static_cast<float>(C) + eps);
#pragma unroll
    for (int j = 0; j < held; ++j) {
      const std::int64_t c = Share<T, width, held>::template column<TeamOfRow>(j);
      if (c >= C) break;
      float w[width];
      load(weight + c, w);
#pragma unroll
      for (int i = 0; i < width; ++i) w[i] = row.at(j, i) * r * (w[i] + weight_offset);
      store(w, y + n * y_stride + c);
    }
  }
}

// partials is null if no dweight is wanted.
template <class T, class W>
struct BackwardOperands {
  Rows<const T> dy, x;
  const W* weight;
  Rows<T> dx;
  float* partials;
};

// Block p goes through the p-th part of the rows with its teams in turn, and writes the sums over these rows to row p of partials (P,C).
template <class TeamOfRow, int width, class T, class W>
__global__ void __launch_bounds__(max_threads) rms_norm_backward_kernel(BackwardOperands<T, W> operands, std::int64_t P, std::int64_t N,
                                                                        std::int64_t C, float eps, float weight_offset) {
  const auto& [dy, x, weight, dx, partials] = operands;
  constexpr int held = backward_held, teams = TeamOfRow::teams_of_block;
  DYNAMIC_SHARED(float, of_teams);  // (teams, C), if there are several
  const std::int64_t p = blockIdx.x, begin = N * p / P + TeamOfRow::index_in_block(), end = N * (p + 1) / P;
  float sums[held][width] = {};
  Share<W, width, held> weights;
  weights.template load<TeamOfRow>(weight, C);
  Share<T, width, held> next_x, next_dy;
  const auto load_next = [&](std::int64_t n) {
    if (n >= end) return;
    next_x.template load<TeamOfRow>(x.at(n, 0), C);
    next_dy.template load<TeamOfRow>(dy.at(n, 0), C);
  };
  load_next(begin);
  for (std::int64_t n = begin; n < end; n += teams) {
    const Share<T, width, held> x_row = next_x, dy_row = next_dy;
    load_next(n + teams);  // loads while this row is computed
    const auto scaled = [&](int j, int i) { return dy_row.at(j, i) * (weights.at(j, i) + weight_offset); };
    float totals[2] = {};  // Σ x², Σ dy (weight + offset) x
#pragma unroll
    for (int j = 0; j < held; ++j)
#pragma unroll
      for (int i = 0; i < width; ++i) {
        totals[0] += x_row.at(j, i) * x_row.at(j, i);
        totals[1] += scaled(j, i) * x_row.at(j, i);
      }
    TeamOfRow::sum(totals);
    const float r = rsqrtf(totals[0] / static_cast<float>(C) + eps), factor = r * r * totals[1] / static_cast<float>(C);
#pragma unroll
    for (int j = 0; j < held; ++j) {
      const std::int64_t c = Share<T, width, held>::template column<TeamOfRow>(j);
      if (c >= C) break;
      float out[width];
#pragma unroll
      for (int i = 0; i < width; ++i) {
        sums[j][i] += dy_row.at(j, i) * x_row.at(j, i) * r;
        out[i] = r * (scaled(j, i) - factor * x_row.at(j, i));
      }
      store(out, dx.at(n, c));
    }
  }
  if (!partials) return;
#pragma unroll
  for (int j = 0; j < held; ++j) {
    const std::int64_t c = Share<T, width, held>::template column<TeamOfRow>(j);
    if (c >= C) break;
    if constexpr (teams == 1) {
      store(sums[j], partials + p * C + c);
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i) of_teams[TeamOfRow::index_in_block() * C + c + i] = sums[j][i];
    }
  }
  if constexpr (teams == 1) return;
  __syncthreads();
  for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) {
    float sum = 0;
    for (int i = 0; i < teams; ++i) sum += of_teams[i * C + c];
    partials[p * C + c] = sum;
  }
}

template <class T>
__device__ float inverse_norm(const T* x, std::int64_t C, float eps) {
  float squares = 0;
  for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) squares += to_float(x[c]) * to_float(x[c]);
  return rsqrtf(block_sum(squares) / static_cast<float>(C) + eps);
}

// ---- Rows of any length and alignment: one block per row, which reads it more than once
template <class T, class W>
__global__ void plain_rms_norm_forward_kernel(const T* x, const W* weight, T* y, std::int64_t N, std::int64_t C, std::int64_t x_stride,
                                              std::int64_t y_stride, float eps, float weight_offset) {
  for (std::int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const T* const row = x + n * x_stride;
    const float r = inverse_norm(row, C, eps);
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      y[n * y_stride + c] = from_float<T>(to_float(row[c]) * r * (to_float(weight[c]) + weight_offset));
  }
}

// Block p goes through the p-th part of the rows. Each thread owns columns of partials (P,C), so that threads share nothing.
template <class T, class W>
__global__ void plain_rms_norm_backward_kernel(BackwardOperands<T, W> operands, std::int64_t P, std::int64_t N, std::int64_t C, float eps,
                                               float weight_offset) {
  const auto& [dy, x, weight, dx, partials] = operands;
  const std::int64_t p = blockIdx.x;
  float* const sums = partials ? partials + p * C : nullptr;
  if (sums)
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) sums[c] = 0;
  for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) {
    const T* const x_row = x.at(n, 0);
    const T* const dy_row = dy.at(n, 0);
    const float r = inverse_norm(x_row, C, eps);
    float dot = 0;
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      dot += to_float(dy_row[c]) * (to_float(weight[c]) + weight_offset) * to_float(x_row[c]);
    const float factor = r * r * block_sum(dot) / static_cast<float>(C);
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) {
      const float d = to_float(dy_row[c]), value = to_float(x_row[c]);
      if (sums) sums[c] += d * value * r;
      *dx.at(n, c) = from_float<T>(r * (d * (to_float(weight[c]) + weight_offset) - factor * value));
    }
  }
}

template <class Function>
void with_types(const char* op, const Tensor& x, const Tensor& weight, const Function& function) {
  with_cuda_float(op, x.dtype, [&](auto x_tag) {
    if (weight.dtype == x.dtype) return function(x_tag, x_tag);
    function(x_tag, type_tag<float>{});
  });
}

constexpr int plain_threads = 256;

// Calls function(team, threads of a block) for rows of C elements that can be read in vectors. Returns false and does nothing if they
// cannot, or are too long.
template <class T, int held, class Function>
bool with_team(std::initializer_list<const Tensor*> tensors, std::int64_t C, const Function& function) {
  constexpr std::int64_t of_thread = held * vector_width<T>;
  const std::int64_t needed = (C + of_thread - 1) / of_thread, threads = (needed + 31) / 32 * 32;
  if (!is_vectorizable(tensors) || threads > max_threads) return false;
  if (needed <= lanes_of_short_rows)
    function(Team<lanes_of_short_rows>{}, threads_of_short_rows);
  else if (needed <= 32)
    function(Team<32>{}, threads_of_short_rows);
  else
    function(Team<whole_block>{}, static_cast<int>(threads));
  return true;
}

}  // namespace

void rms_norm_forward(Context& context, const Tensor& x, const Tensor& weight, const Tensor& y, double eps, double weight_offset) {
  check_rms_norm_forward(x, weight, y);
  if (x.rows() == 0) return;
  with_types("rms_norm_forward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    const auto run = [&](auto kernel, int teams, int threads) {
      launch(context, kernel, grid_for(x.rows(), teams, 65535), threads, 0, x.as<const T>(), weight.as<const W>(), y.as<T>(), x.rows(),
             x.cols(), x.row_stride, y.row_stride, float(eps), float(weight_offset));
    };
    const bool has_run = with_team<T, forward_held>({&x, &weight, &y}, x.cols(), [&](auto team, int threads) {
      using TeamOfRow = decltype(team);
      run(rms_norm_forward_kernel<TeamOfRow, vector_width<T>, T, W>, TeamOfRow::teams_of_block, threads);
    });
    if (!has_run) run(plain_rms_norm_forward_kernel<T, W>, 1, plain_threads);
  });
}

void rms_norm_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx,
                       const OptionalTensor& dweight, const OptionalTensor& partials, double eps, double weight_offset) {
  check_rms_norm_backward(dy, x, weight, dx, dweight, partials);
  constexpr std::int64_t parts_without_partials = 132 * 8;
  if (x.rows() == 0) return;
  const std::int64_t P = partials ? partials->rows() : std::min(x.rows(), parts_without_partials);
  with_types("rms_norm_backward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    const auto run = [&](auto kernel, int threads, std::size_t shared_bytes) {
      const BackwardOperands<T, W> operands{rows_of<const T>(dy), rows_of<const T>(x), weight.as<const W>(), rows_of<T>(dx),
                                            partials ? partials->as<float>() : nullptr};
      launch(context, kernel, static_cast<unsigned>(P), threads, shared_bytes, operands, P, x.rows(), x.cols(), float(eps),
             float(weight_offset));
    };
    const bool has_run = with_team<T, backward_held>({&dy, &x, &weight, &dx}, x.cols(), [&](auto team, int threads) {
      using TeamOfRow = decltype(team);
      constexpr std::size_t teams = TeamOfRow::teams_of_block;
      run(rms_norm_backward_kernel<TeamOfRow, vector_width<T>, T, W>, threads,
          teams > 1 ? teams * static_cast<std::size_t>(x.cols()) * sizeof(float) : 0);
    });
    if (!has_run) run(plain_rms_norm_backward_kernel<T, W>, plain_threads, 0);
  });
  if (dweight) add_partials(context, "rms_norm_backward", *partials, *dweight);
}

}  // namespace mst::cuda
