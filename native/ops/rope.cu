// Rotary position embedding; see rope.h.
#include "rope.h"

#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

// The rotation of a call; document_start is null if there is none.
struct Rotation {
  const double* inverse_frequencies;
  const std::int32_t* document_start;
  std::int64_t N, sequence_length, head_size, half, num_heads, parts;
  float scale;
  bool inverse;
  double growth;
  std::int64_t growth_positions;
};

// A thread rotates a vector of pairs of one row n in every `parts`-th head, so that it forms the angles once. A vector is the pairs (d, d +
// half) for `width` d, or, if interleaved, one pair (2d, 2d + 1). The thread also copies vectors of the columns that are not rotated.
template <int width, bool interleaved, class T>
__global__ void rope_kernel(Rows<const T> x, Rows<T> y, Rotation rotation) {
  static_assert(!interleaved || width == 1);
  const auto& [inverse_frequencies, document_start, N, sequence_length, head_size, half, num_heads, parts, scale, inverse, growth,
               growth_positions] = rotation;
  constexpr double turns_of_radian = 0.15915494309189535;  // 1 / 2π
  const auto vectors = static_cast<unsigned>(half / width);
  const std::int64_t of_row = parts * vectors;
  for (std::int64_t i = grid_thread(); i < N * of_row; i += grid_threads()) {
    const std::int64_t n = i / of_row;
    const auto rest = static_cast<unsigned>(i - n * of_row);
    const std::int64_t part = rest / vectors, d = std::int64_t(rest % vectors) * width;
    const std::int64_t position = document_start ? n - document_start[n] : n % sequence_length;
    const float grown = growth == 0 ? 1.f : static_cast<float>(1 + growth * log1p(static_cast<double>(position / growth_positions)));
    float cosine[width], sine[width];
#pragma unroll
    for (int j = 0; j < width; ++j) {
      // whole turns are removed in f64; then f32 is enough
      const double turns = static_cast<double>(position) * (inverse_frequencies[d + j] * turns_of_radian);
      sincospif(static_cast<float>(2 * (turns - rint(turns))), &sine[j], &cosine[j]);
      cosine[j] *= scale * grown;
      sine[j] *= (inverse ? -scale : scale) * grown;
    }
    for (std::int64_t h = part; h < num_heads; h += parts) {
      const std::int64_t place = h * head_size + (interleaved ? 2 * d : d), distance = interleaved ? 1 : half;
      const T* const from = x.at(n, place);
      T* const to = y.at(n, place);
      float first[width], second[width];
      load(from, first);
      load(from + distance, second);
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const float turned = first[j] * cosine[j] - second[j] * sine[j];
        second[j] = second[j] * cosine[j] + first[j] * sine[j];
        first[j] = turned;
      }
      store(first, to);
      store(second, to + distance);
      for (std::int64_t column = 2 * half + d; column < head_size; column += half) {
        load(x.at(n, h * head_size + column), first);
#pragma unroll
        for (int j = 0; j < width; ++j) first[j] *= grown;
        store(first, y.at(n, h * head_size + column));
      }
    }
  }
}

}  // namespace

void rope(Context& context, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
          const RopeOptions& options) {
  check_rope(x, inverse_frequencies, document_start, y, options);
  const std::int64_t N = x.rows(), D = options.D, half = inverse_frequencies.size();
  if (N == 0) return;
  MST_CHECK(half > 0, "rope: no column is rotated");
  with_cuda_float("rope", x.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    constexpr std::int64_t heads_of_thread = 8;
    const std::int64_t num_heads = x.cols() / D, parts = (num_heads + heads_of_thread - 1) / heads_of_thread;
    const bool in_vectors = !options.is_interleaved && is_vectorizable({&x, &y}) && half % vector_width<E> == 0 && D % vector_width<E> == 0;
    const Rotation rotation{inverse_frequencies.as<const double>(),
                            document_start ? document_start->as<const std::int32_t>() : nullptr,
                            N,
                            options.T,
                            D,
                            half,
                            num_heads,
                            parts,
                            float(options.scale),
                            options.is_inverse,
                            options.growth,
                            options.growth_positions};
    const auto kernel = options.is_interleaved ? rope_kernel<1, true, E>
                        : in_vectors           ? rope_kernel<vector_width<E>, false, E>
                                               : rope_kernel<1, false, E>;
    launch(context, kernel, grid_for(N * parts * half / (in_vectors ? vector_width<E> : 1), 128), 128, 0, rows_of<const E>(x),
           rows_of<E>(y), rotation);
  });
}

}  // namespace mst::cuda
