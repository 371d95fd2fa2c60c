// Softmax cross-entropy in place; see cross_entropy.h. A row that fits the registers of a block, or of a cluster of blocks, is read once.
// For a longer row one block reads it twice, the second time from L2.
#include "cross_entropy.h"

#include <algorithm>
#include <limits>

#include "../cuda/common/math.h"
#include "../cuda/common/reduce.h"
#include "cross_entropy_rows.h"

namespace mst::cuda {
namespace {

struct OutputsOfRows {
  float *losses, *lse, *log_probability, *entropy, *correct;
};

struct Options {
  std::int64_t first_row, ignore_index;
  float label_smoothing, z_loss, softcap;  // 0: none
  bool write_dlogits;
};

// Logits z in units of the soft-cap: z = tanh(logit / softcap), unit = softcap. Without a soft-cap z = logit, unit = 1.
template <class T, bool has_softcap>
class Units {
 public:
  __device__ explicit Units(float softcap) : unit_(has_softcap ? softcap : 1.0f), inverse_(1.0f / unit_), exponent_(unit_ * log2_e) {}

  __device__ float unit() const {
    return unit_;
  }
  template <int n>
  __device__ void convert(float (&logits)[n]) const {
    if constexpr (has_softcap) hyperbolic_tangents<T>(logits, inverse_);
  }
  __device__ float converted(float logit) const {
    float z[1] = {logit};
    convert(z);
    return z[0];
  }
  // d(unit · z) / d(logit)
  __device__ float slope(float z) const {
    return has_softcap ? 1.0f - z * z : 1.0f;
  }
  // e^(unit · (z - shift)), as accurate as a result of type T needs; for bf16 the exponent is one multiplication and addition.
  __device__ float exponential_above(float shift, float z) const {
    if constexpr (sizeof(T) == sizeof(float))
      return expf(unit_ * (z - shift));
    else
      return exp2_approximate(z * exponent_ - shift * exponent_);
  }

 private:
  float unit_, inverse_, exponent_;
};

// Sums over part of a row's z that only some options need.
struct OptionalSums {
  float sum_exp_z = 0, sum = 0;  // Σ exp(unit (z - max)) z, Σ z
  std::uint32_t is_beaten = 0;   // 1 if a logit beats the target's
  std::uint32_t unused = 0;
};
struct NoOptionalSums {};

// Sums over part of a row's z: the maximum and Σ exp(unit (z - max)); with has_optional also OptionalSums.
template <class T, bool has_softcap, bool has_optional>
struct Sums : std::conditional_t<has_optional, OptionalSums, NoOptionalSums> {
  using UnitsOfRow = Units<T, has_softcap>;
  float max = -INFINITY, sum_exp = 0;

  __device__ float shift() const {
    return max == -INFINITY ? 0.0f : max;
  }

  // A logit above `beaten` beats the target's.
  template <int width>
  __device__ void add(const Vector<T, width>& vector, float beaten, const UnitsOfRow& units) {
    float z[width], largest = largest_of(vector);
    if constexpr (has_optional)
      if (largest > beaten) this->is_beaten = 1;
    to_floats(vector, z);
    units.convert(z);
    if constexpr (has_softcap) {
      largest = z[0];
#pragma unroll
      for (int i = 1; i < width; ++i) largest = fmaxf(largest, z[i]);
    }
    set_max(fmaxf(max, largest), units);
    const float at = shift();
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float e = units.exponential_above(at, z[i]);
      sum_exp += e;
      if constexpr (has_optional) {
        this->sum += z[i];
        if (has_softcap || e > 0) this->sum_exp_z += e * z[i];  // 0 · -inf counts as 0
      }
    }
  }

  __device__ void add(const Sums& other, const UnitsOfRow& units) {
    set_max(fmaxf(max, other.max), units);
    const float of_other = units.exponential_above(shift(), other.max);
    sum_exp += other.sum_exp * of_other;
    if constexpr (has_optional) {
      this->sum_exp_z += other.sum_exp_z * of_other;
      this->sum += other.sum;
      this->is_beaten |= other.is_beaten;
    }
  }

  __device__ Sums over_warp(const UnitsOfRow& units) const {
    Sums all = *this;
    all.set_max(warp_reduce<Max>(max), units);
    all.sum_exp = warp_reduce<Sum>(all.sum_exp);
    if constexpr (has_optional) {
      all.sum_exp_z = warp_reduce<Sum>(all.sum_exp_z);
      all.sum = warp_reduce<Sum>(all.sum);
      all.is_beaten = __ballot_sync(0xffffffffu, all.is_beaten) != 0;
    }
    return all;
  }

  __device__ Sums over_cluster(Board<Sums>& board, const UnitsOfRow& units) const {
    const Sums* const of_warps = board.exchange(over_warp(units));
    Sums part;
    for (int i = threadIdx.x % 32; i < board.size(); i += 32) part.add(of_warps[i], units);
    return part.over_warp(units);
  }

 private:
  __device__ void set_max(float larger, const UnitsOfRow& units) {
    const float before = max;
    max = larger;
    const float shrink = units.exponential_above(shift(), before);  // 0 the first time
    sum_exp *= shrink;
    if constexpr (has_optional) this->sum_exp_z *= shrink;
  }
};

// A cluster computes rows_of_cluster rows, one after another.
template <class Row, bool has_softcap, bool has_optional, class T>
__global__ void __launch_bounds__(Row::threads, Row::blocks_of_multiprocessor)
    cross_entropy_kernel(T* logits, const std::int32_t* targets, const float* token_weights, OutputsOfRows outputs, std::int64_t M, int V,
                         std::int64_t stride, Options options, int rows_of_cluster, long long* status) {
  DYNAMIC_SHARED(std::uint64_t, memory);
  using RowSums = Sums<T, has_softcap, has_optional>;
  const Units<T, has_softcap> units(options.softcap);
  const int blocks = cluster_size();
  const int thread = cluster_rank() * Row::threads + static_cast<int>(threadIdx.x);  // among all threads that share the row
  std::int64_t m = blockIdx.x / blocks * std::int64_t(rows_of_cluster);
  T* to = logits + m * stride;
  Row row(to, V);
  Board<RowSums> board(memory);
  const int num_rows = static_cast<int>(M - m < rows_of_cluster ? M - m : rows_of_cluster);
  for (int i = 0; i < num_rows; ++i, ++m, to += stride) {
    const T* const next = i + 1 < num_rows ? to + stride : nullptr;
    const int target = targets[m];
    const bool is_ignored = target == options.ignore_index, is_valid = target >= 0 && target < V;
    if (is_ignored || !is_valid) {
      if (thread == 0) {
        if (!is_ignored) note_status(status, status_cross_entropy, options.first_row + m, target, V);
        for (float* output : {outputs.losses, outputs.lse, outputs.log_probability, outputs.entropy, outputs.correct})
          if (output) output[m] = 0;
      }
      if (options.write_dlogits)
        for (int v = thread; v < V; v += blocks * Row::threads) to[v] = from_float<T>(0.0f);
      row.load(next);
      continue;
    }
    // The thread that overwrites the target's logit also keeps its value: another thread might read it too late.
    const bool is_owner = row.is_mine(target);
    const float target_logit = to_float(to[target]), below_target = nextafterf(target_logit, -INFINITY);
    RowSums part;
    row.for_each([&]<int n>(int v, const Vector<T, n>& vector) {
      part.add(vector, v + n <= target ? below_target : target_logit, units);  // of equal logits the first is the argmax, …
    });
    if constexpr (has_optional)
      if (is_owner && outputs.correct)  // … those of the target's own vector too
        for (int v = target / vector_width<T> * vector_width<T>; v < target; ++v)
          if (to_float(to[v]) == target_logit) part.is_beaten = 1;
    const RowSums sums = part.over_cluster(board, units);
    // Logarithms and quotients are in f32: in f64 the other threads would have to wait at the next row.
    const float log_sum = is_owner || options.z_loss != 0 ? logf(sums.sum_exp) : 0.0f;
    const double unit = units.unit(), lse = unit * double(sums.shift()) + double(log_sum);
    if (options.write_dlogits) {
      const float weight = token_weights ? token_weights[m] : 1.0f, shift = sums.shift();
      const float scale = __fdividef(options.z_loss != 0 ? weight * float(1 + 2 * options.z_loss * lse) : weight, sums.sum_exp);
      const float smoothing = has_optional ? weight * (options.label_smoothing / float(V)) : 0.0f;
      const auto overwrite = [&]<int n>(int v, const Vector<T, n>& vector) {
        float d[n];
        to_floats(vector, d);
        units.convert(d);
#pragma unroll
        for (float& z : d) {
          const float of_probability = units.exponential_above(shift, z) * scale;
          z = (has_optional ? of_probability - smoothing : of_probability) * units.slope(z);
        }
        store(d, to + v);
      };
      row.for_each_then_load(overwrite, next);
      if (is_owner) {
        const float z = units.converted(target_logit);
        const float d = units.exponential_above(shift, z) * scale - smoothing - weight * (1 - options.label_smoothing);
        to[target] = from_float<T>(d * units.slope(z));
      }
    } else {
      row.load(next);
    }
    if (!is_owner) continue;
    const double target_z = unit * units.converted(target_logit);
    double loss = lse - (1 - options.label_smoothing) * target_z + options.z_loss * lse * lse;
    if (outputs.lse) outputs.lse[m] = float(lse);
    if (outputs.log_probability) outputs.log_probability[m] = float(target_z - lse);
    if constexpr (has_optional) {
      if (options.label_smoothing > 0) loss -= options.label_smoothing * unit * (sums.sum / float(V));
      if (outputs.entropy) outputs.entropy[m] = float(lse - unit * (sums.sum_exp_z / sums.sum_exp));
      if (outputs.correct) outputs.correct[m] = sums.is_beaten == 0;
    }
    outputs.losses[m] = float(loss);
  }
}

// Clusters that fill the largest GPU several times over. If there are more rows, each cluster takes several.
constexpr std::int64_t enough_clusters = 512, most_rows_of_cluster = 8;

// One block; thread sums are added in a fixed order.
__global__ void cross_entropy_sum_kernel(const float* losses, const float* token_weights, float* loss, std::int64_t N, double scale) {
  double sum = 0;
  for (std::int64_t n = threadIdx.x; n < N; n += blockDim.x) sum += double(losses[n]) * (token_weights ? double(token_weights[n]) : 1.0);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = float(sum * scale);
}

__global__ void cross_entropy_divisor_kernel(const std::int32_t* targets, const float* token_weights, float* divisor, std::int64_t N,
                                             std::int64_t ignore_index) {
  double sum = 0;
  int count = 0;
  for (std::int64_t n = threadIdx.x; n < N; n += blockDim.x) {
    if (targets[n] == ignore_index) continue;
    ++count;
    sum += token_weights ? double(token_weights[n]) : 1.0;
  }
  sum = block_sum(sum);
  count = block_sum(count);
  if (threadIdx.x == 0) *divisor = count > 0 ? float(sum) : 1.0f;
}

}  // namespace

void cross_entropy(Context& context, const Tensor& logits, const LossTargets& targets, const TokenOutputs& outputs,
                   const LossOptions& options, std::int64_t first_row, bool write_dlogits) {
  const std::int64_t M = logits.rows(), V = logits.cols();
  check_loss("cross_entropy", {"logits", logits}, targets, outputs);
  if (M == 0) return;
  const auto pointer = [](const OptionalTensor& tensor) { return tensor ? tensor->as<float>() : nullptr; };
  const OutputsOfRows to{outputs.losses.as<float>(), pointer(outputs.lse), pointer(outputs.log_probability), pointer(outputs.entropy),
                         pointer(outputs.correct)};
  const Options of_rows{first_row,    options.ignore_index, float(options.label_smoothing), float(options.z_loss), float(options.softcap),
                        write_dlogits};
  const bool has_optional = options.label_smoothing > 0 || outputs.entropy || outputs.correct;
  with_cuda_float("cross_entropy", logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int width = vector_width<T>;
    const auto run_options = [&](auto softcap_tag, auto optional_tag) {
      constexpr bool with_softcap = decltype(softcap_tag)::value, with_optional = decltype(optional_tag)::value;
      using BoardOfRow = Board<Sums<T, with_softcap, with_optional>>;
      const auto run = [&]<class Row>(type_tag<Row>, unsigned blocks) {
        constexpr std::int64_t most_blocks = std::numeric_limits<int>::max();
        MST_CHECK(V <= most_blocks && M <= most_blocks / blocks, "cross_entropy: logits ", logits, " have too many rows or columns");
        const std::int64_t rows_of_cluster = std::clamp<std::int64_t>(M / enough_clusters, 1, most_rows_of_cluster);
        const std::int64_t clusters = (M + rows_of_cluster - 1) / rows_of_cluster;
        launch_clusters(context, cross_entropy_kernel<Row, with_softcap, with_optional, T>, blocks,
                        static_cast<unsigned>(blocks * clusters), Row::threads, BoardOfRow::bytes(blocks, Row::threads / 32),
                        logits.as<T>(), targets.ids.as<const std::int32_t>(), pointer(targets.weights), to, M, int(V), logits.row_stride,
                        of_rows, int(rows_of_cluster), context.status_words());
      };
      using InRegisters = RegisterRow<width, T>;
      unsigned blocks = 1;
      while (std::int64_t{blocks} * InRegisters::max_cols < V) blocks *= 2;
      if (has_aligned_rows(logits) && blocks <= max_cluster_size(cross_entropy_kernel<InRegisters, with_softcap, with_optional, T>))
        run(type_tag<InRegisters>{}, blocks);
      else if (has_aligned_rows(logits))
        run(type_tag<MemoryRow<width, T>>{}, 1);
      else
        run(type_tag<MemoryRow<1, T>>{}, 1);
    };
    // Separate code for each: what a row does not need would cost registers, and instructions where memory is no longer the limit.
    const auto run_optional = [&](auto softcap_tag) {
      if (has_optional)
        run_options(softcap_tag, std::true_type{});
      else
        run_options(softcap_tag, std::false_type{});
    };
    if (options.softcap > 0)
      run_optional(std::true_type{});
    else
      run_optional(std::false_type{});
  });
}

void cross_entropy_sum(Context& context, const Tensor& losses, const OptionalTensor& token_weights, const Tensor& loss, double scale) {
  check_loss_sum(losses, token_weights, loss);
  launch(context, cross_entropy_sum_kernel, 1, 1024, 0, losses.as<const float>(),
         token_weights ? token_weights->as<const float>() : nullptr, loss.as<float>(), losses.size(), scale);
}

void cross_entropy_divisor(Context& context, const Tensor& targets, const OptionalTensor& token_weights, const Tensor& divisor,
                           std::int64_t ignore_index) {
  check_loss_divisor(targets, token_weights, divisor);
  launch(context, cross_entropy_divisor_kernel, 1, 1024, 0, targets.as<const std::int32_t>(),
         token_weights ? token_weights->as<const float>() : nullptr, divisor.as<float>(), targets.size(), ignore_index);
}

}  // namespace mst::cuda
