// Rotary position embedding; see rope.h.
#include "rope.h"

#include "../cuda/common/vector_load.h"

namespace mst::cuda {
namespace {

// How the rows of a call turn; document_start null: none.
struct Rotation {
  const double* inverse_frequencies;
  const std::int32_t* document_start;
  std::int64_t N, sequence_length, half, num_heads, parts;
  float scale;
  bool inverse;
};

// A thread turns a vector of pairs (d, d + half) of one row n, in every `parts`-th head: the angles are formed once.
template <int width, class T>
__global__ void rope_kernel(Rows<const T> x, Rows<T> y, Rotation rotation) {
  const auto& [inverse_frequencies, document_start, N, sequence_length, half, num_heads, parts, scale, inverse] = rotation;
  constexpr double turns_of_radian = 0.15915494309189535;  // 1 / 2π
  const auto vectors = static_cast<unsigned>(half / width);
  const std::int64_t of_row = parts * vectors;
  for (std::int64_t i = grid_thread(); i < N * of_row; i += grid_threads()) {
    const std::int64_t n = i / of_row;
    const auto rest = static_cast<unsigned>(i - n * of_row);
    const std::int64_t part = rest / vectors, d = std::int64_t(rest % vectors) * width;
    const std::int64_t position = document_start ? n - document_start[n] : n % sequence_length;
    float cosine[width], sine[width];
#pragma unroll
    for (int j = 0; j < width; ++j) {
      // whole turns are taken away in f64, after which f32 is enough
      const double turns = static_cast<double>(position) * (inverse_frequencies[d + j] * turns_of_radian);
      sincospif(static_cast<float>(2 * (turns - rint(turns))), &sine[j], &cosine[j]);
      cosine[j] *= scale;
      sine[j] *= inverse ? -scale : scale;
    }
    for (std::int64_t h = part; h < num_heads; h += parts) {
      const T* const from = x.at(n, h * 2 * half + d);
      T* const to = y.at(n, h * 2 * half + d);
      float first[width], second[width];
      load(from, first);
      load(from + half, second);
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const float turned = first[j] * cosine[j] - second[j] * sine[j];
        second[j] = second[j] * cosine[j] + first[j] * sine[j];
        first[j] = turned;
      }
      store(first, to);
      store(second, to + half);
    }
  }
}

}  // namespace

void rope(Context& context, const Tensor& x, const Tensor& inverse_frequencies, const OptionalTensor& document_start, const Tensor& y,
          std::int64_t T, std::int64_t D, double scale, bool inverse) {
  check_rope(x, inverse_frequencies, document_start, y, T, D);
  const std::int64_t N = x.rows(), half = D / 2;
  if (N == 0) return;
  with_cuda_float("rope", x.dtype, [&](auto tag) {
    using E = typename decltype(tag)::type;
    constexpr std::int64_t heads_of_thread = 8;
    const std::int64_t num_heads = x.cols() / D, parts = (num_heads + heads_of_thread - 1) / heads_of_thread;
    const bool in_vectors = is_vectorizable({&x, &y}) && half % vector_width<E> == 0;
    const Rotation rotation{inverse_frequencies.as<const double>(),
                            document_start ? document_start->as<const std::int32_t>() : nullptr,
                            N,
                            T,
                            half,
                            num_heads,
                            parts,
                            float(scale),
                            inverse};
    launch(context, in_vectors ? rope_kernel<vector_width<E>, E> : rope_kernel<1, E>,
           grid_for(N * parts * half / (in_vectors ? vector_width<E> : 1), 128), 128, 0, rows_of<const E>(x), rows_of<E>(y), rotation);
  });
}

}  // namespace mst::cuda
