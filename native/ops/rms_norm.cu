// Root mean square normalisation; see rms_norm.h.
#include "rms_norm.h"

#include <algorithm>

#include "../cuda/reduce.h"
#include "../cuda/vector_load.h"

namespace mst::cuda {
namespace {

// ---- Rows of vectors

// The threads that share a row: a warp, where rows are short, or the block.
template <bool is_warp>
struct Team {
  static constexpr int rows_of_block = is_warp ? 8 : 1;

  __device__ static int size() {
    return is_warp ? 32 : static_cast<int>(blockDim.x);
  }
  __device__ static int rank() {
    return is_warp ? static_cast<int>(threadIdx.x % 32) : static_cast<int>(threadIdx.x);
  }
  __device__ static std::int64_t index() {
    return is_warp ? grid_thread() / 32 : blockIdx.x;
  }
  __device__ static std::int64_t count() {
    return is_warp ? grid_threads() / 32 : gridDim.x;
  }
  template <int n>
  __device__ static void sum(float (&values)[n]) {
    if constexpr (is_warp) {
#pragma unroll
      for (float& value : values) value = warp_reduce<Sum>(value);
    } else {
      block_sums(values);
    }
  }
};

constexpr int max_threads = 512;
// Vectors of a row that a thread holds: so many that a row is read once, and so few that the backward has registers for its sums.
constexpr int forward_held = 4, backward_held = 2;

// The vectors of a row that are a thread's.
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
  for (std::int64_t n = TeamOfRow::index(); n < N; n += TeamOfRow::count()) {
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

// The p-th team goes through the p-th part of the rows and writes row p of partials (P,C), its columns' sums over them.
template <class TeamOfRow, int width, class T, class W>
__global__ void __launch_bounds__(max_threads)
    rms_norm_backward_kernel(const T* dy, const T* x, const W* weight, T* dx, float* partials, std::int64_t P, std::int64_t N,
                             std::int64_t C, std::int64_t dy_stride, std::int64_t x_stride, std::int64_t dx_stride, float eps,
                             float weight_offset) {
  constexpr int held = backward_held;
  const std::int64_t p = TeamOfRow::index(), begin = N * p / P, end = N * (p + 1) / P;
  if (p >= P) return;
  float sums[held][width] = {};
  Share<W, width, held> weights;
  weights.template load<TeamOfRow>(weight, C);
  Share<T, width, held> next_x, next_dy;
  const auto load_next = [&](std::int64_t n) {
    if (n >= end) return;
    next_x.template load<TeamOfRow>(x + n * x_stride, C);
    next_dy.template load<TeamOfRow>(dy + n * dy_stride, C);
  };
  load_next(begin);
  for (std::int64_t n = begin; n < end; ++n) {
    const Share<T, width, held> x_row = next_x, dy_row = next_dy;
    load_next(n + 1);  // on its way while this row is worked on
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
      store(out, dx + n * dx_stride + c);
    }
  }
  if (!partials) return;
#pragma unroll
  for (int j = 0; j < held; ++j) {
    const std::int64_t c = Share<T, width, held>::template column<TeamOfRow>(j);
    if (c < C) store(sums[j], partials + p * C + c);
  }
}

template <class T>
__device__ float inverse_norm(const T* x, std::int64_t C, float eps) {
  float squares = 0;
  for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) squares += to_float(x[c]) * to_float(x[c]);
  return rsqrtf(block_sum(squares) / static_cast<float>(C) + eps);
}

// ---- Rows of any length and alignment, read more than once, one block a row
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

// Block p goes through the p-th part of the rows. A thread owns columns of partials (P,C), so that nothing is shared.
template <class T, class W>
__global__ void plain_rms_norm_backward_kernel(const T* dy, const T* x, const W* weight, T* dx, float* partials, std::int64_t P,
                                               std::int64_t N, std::int64_t C, std::int64_t dy_stride, std::int64_t x_stride,
                                               std::int64_t dx_stride, float eps, float weight_offset) {
  const std::int64_t p = blockIdx.x;
  float* const sums = partials ? partials + p * C : nullptr;
  if (sums)
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) sums[c] = 0;
  for (std::int64_t n = N * p / P; n < N * (p + 1) / P; ++n) {
    const T* const x_row = x + n * x_stride;
    const T* const dy_row = dy + n * dy_stride;
    const float r = inverse_norm(x_row, C, eps);
    float dot = 0;
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x)
      dot += to_float(dy_row[c]) * (to_float(weight[c]) + weight_offset) * to_float(x_row[c]);
    const float factor = r * r * block_sum(dot) / static_cast<float>(C);
    for (std::int64_t c = threadIdx.x; c < C; c += blockDim.x) {
      const float d = to_float(dy_row[c]), value = to_float(x_row[c]);
      if (sums) sums[c] += d * value * r;
      dx[n * dx_stride + c] = from_float<T>(r * (d * (to_float(weight[c]) + weight_offset) - factor * value));
    }
  }
}

// dweight (C,) += Σ partials (P,C). A block adds 32 columns: each warp every eighth row, then the warps' sums in order.
constexpr int partial_warps = 8;

template <class G>
__global__ void add_partials_kernel(const float* partials, G* dweight, std::int64_t P, std::int64_t C) {
  __shared__ float of_warps[partial_warps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t c = std::int64_t(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (c < C)
#pragma unroll 8
    for (std::int64_t p = warp; p < P; p += partial_warps) sum += partials[p * C + c];
  of_warps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= C) return;
  for (int i = 1; i < partial_warps; ++i) sum += of_warps[i][lane];
  dweight[c] = from_float<G>(to_float(dweight[c]) + sum);
}

template <class Function>
void with_types(const char* op, const Tensor& x, const Tensor& weight, const Function& function) {
  MST_CHECK(weight.size() == x.cols(), op, ": weight ", weight, " does not have the columns of x ", x);
  with_cuda_float(op, x.dtype, [&](auto x_tag) {
    if (weight.dtype == x.dtype) return function(x_tag, x_tag);
    MST_CHECK(weight.dtype == Dtype::f32, op, ": weight ", weight, " has neither x's dtype nor float32");
    function(x_tag, type_tag<float>{});
  });
}

constexpr int plain_threads = 256;

// Calls function(team, threads of a block) for rows of C elements in vectors; false, having done nothing, where they are not or too long.
template <class T, int held, class Function>
bool with_team(std::initializer_list<const Tensor*> tensors, std::int64_t C, const Function& function) {
  constexpr std::int64_t of_thread = held * vector_width<T>;
  const std::int64_t threads = ((C + of_thread - 1) / of_thread + 31) / 32 * 32;
  if (!is_vectorizable(tensors) || threads > max_threads) return false;
  if (threads == 32)
    function(Team<true>{}, 32 * Team<true>::rows_of_block);
  else
    function(Team<false>{}, static_cast<int>(threads));
  return true;
}

}  // namespace

void rms_norm_forward(const Tensor& x, const Tensor& weight, const Tensor& y, double eps, double weight_offset) {
  if (x.rows() == 0) return;
  with_types("rms_norm_forward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    const auto run = [&](auto kernel, int rows_of_block, int threads) {
      launch(kernel, grid_for(x.rows(), rows_of_block, 65535), threads, 0, x.as<const T>(), weight.as<const W>(), y.as<T>(), x.rows(),
             x.cols(), x.row_stride, y.row_stride, float(eps), float(weight_offset));
    };
    const bool has_run = with_team<T, forward_held>({&x, &weight, &y}, x.cols(), [&](auto team, int threads) {
      using TeamOfRow = decltype(team);
      run(rms_norm_forward_kernel<TeamOfRow, vector_width<T>, T, W>, TeamOfRow::rows_of_block, threads);
    });
    if (!has_run) run(plain_rms_norm_forward_kernel<T, W>, 1, plain_threads);
  });
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dx, const OptionalTensor& dweight,
                       const OptionalTensor& partials, double eps, double weight_offset) {
  constexpr std::int64_t parts_without_partials = 132 * 8;
  MST_CHECK(dweight.has_value() == partials.has_value(), "rms_norm_backward: dweight and partials come together");
  if (x.rows() == 0) return;
  const std::int64_t P = partials ? partials->rows() : std::min(x.rows(), parts_without_partials);
  with_types("rms_norm_backward", x, weight, [&](auto x_tag, auto weight_tag) {
    using T = typename decltype(x_tag)::type;
    using W = typename decltype(weight_tag)::type;
    const auto run = [&](auto kernel, int rows_of_block, int threads) {
      launch(kernel, grid_for(P, rows_of_block), threads, 0, dy.as<const T>(), x.as<const T>(), weight.as<const W>(), dx.as<T>(),
             partials ? partials->as<float>() : nullptr, P, x.rows(), x.cols(), dy.row_stride, x.row_stride, dx.row_stride, float(eps),
             float(weight_offset));
    };
    const bool has_run = with_team<T, backward_held>({&dy, &x, &weight, &dx}, x.cols(), [&](auto team, int threads) {
      using TeamOfRow = decltype(team);
      run(rms_norm_backward_kernel<TeamOfRow, vector_width<T>, T, W>, TeamOfRow::rows_of_block, threads);
    });
    if (!has_run) run(plain_rms_norm_backward_kernel<T, W>, 1, plain_threads);
  });
  if (!dweight) return;
  with_cuda_float("rms_norm_backward", dweight->dtype, [&](auto tag) {
    using G = typename decltype(tag)::type;
    launch(add_partials_kernel<G>, static_cast<unsigned>((x.cols() + 31) / 32), 32 * partial_warps, 0, partials->as<const float>(),
           dweight->as<G>(), partials->rows(), x.cols());
  });
}

}  // namespace mst::cuda
