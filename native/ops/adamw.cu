// AdamW; see adamw.h.
#include "adamw.h"

#include <algorithm>

#include "../cuda/common/reduce.h"
#include "../cuda/common/vector_load.h"
#include "../dynamic_map.h"

namespace mst::cuda {
namespace {

// Roots and quotients within 2 units in the last place; exact ones take some 20 instructions each. Quotients below 2^-126 become 0.
__device__ inline float quick_root(float x) {
#ifdef __CUDACC__
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
#else
  return sqrtf(x);
#endif
}
__device__ inline float quick_quotient(float a, float b) {
#ifdef __CUDACC__
  float quotient;
  asm("div.approx.ftz.f32 %0, %1, %2;" : "=f"(quotient) : "f"(a), "f"(b));
  return quotient;
#else
  return a / b;
#endif
}

// Integers: the smallest and the largest of three, one instruction on compute 9.0.
__device__ inline std::uint32_t smallest_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#ifdef __CUDACC__
  return __vimin3_u32(a, b, c);
#else
  return std::min({a, b, c});
#endif
}
__device__ inline std::uint32_t largest_of(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#ifdef __CUDACC__
  return __vimax3_u32(a, b, c);
#else
  return std::max({a, b, c});
#endif
}
// Four of the eight bytes of `low` and `high`, each named by 4 bits of `selector`, from the lowest on. 8 + i stands for byte i's sign: 0 or
// 0xff.
template <std::uint32_t selector>
__device__ inline std::uint32_t select_bytes(std::uint32_t low, std::uint32_t high) {
#ifdef __CUDACC__
  std::uint32_t selected;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(selected) : "r"(low), "r"(high), "n"(selector));
  return selected;
#else
  const std::uint64_t both = std::uint64_t{high} << 32 | low;
  std::uint32_t selected = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t name = selector >> 4 * i & 0xfu, byte = both >> 8 * (name & 7u) & 0xffu;
    selected |= (name < 8 ? byte : byte >> 7 ? 0xffu : 0) << 8 * i;
  }
  return selected;
#endif
}
// Byte 2 of each of four words.
__device__ inline std::uint32_t third_bytes(const std::uint32_t (&words)[4]) {
  return select_bytes<0x5410>(select_bytes<0x0062>(words[0], words[1]), select_bytes<0x0062>(words[2], words[3]));
}

struct Update {
  float learning_rate, beta1, beta2, eps, decay;
  double exact_beta1, exact_beta2;  // for the bias corrections
  PhiloxKeys keys;
  std::int64_t op, first;

  __device__ void correct(std::int32_t t, float (&corrections)[2]) const {
    corrections[0] = static_cast<float>(1 / (1 - pow(exact_beta1, double(t))));
    corrections[1] = static_cast<float>(1 / (1 - pow(exact_beta2, double(t))));
  }
  __device__ void apply(float g, float& mean, float& square, float& updated, const float (&corrections)[2]) const {
    mean = beta1 * mean + (1.0f - beta1) * g;
    square = beta2 * square + (1.0f - beta2) * g * g;
    const float step = quick_quotient(learning_rate * corrections[0] * mean, quick_root(square * corrections[1]) + eps);
    updated = updated * decay - step;
  }
};

__device__ bool is_finite(const float* factor) {
  return !factor || *factor - *factor == 0.0f;
}

// A value rounded to bf16 by 16 random bits.
__device__ inline float rounded_at_random(float value, std::uint32_t random) {
  return __uint_as_float(round_at_random(__float_as_uint(value), random) << 16);
}

// The bits of a value whose upper half is that value rounded to bf16 by 16 random bits, the lower ones of `random`.
__device__ inline std::uint32_t raised_at_random(float value, std::uint32_t random) {
  constexpr float largest = 3.40282347e38f;
  const std::uint32_t bits = __float_as_uint(value);
  return fabsf(value) <= largest ? bits + (random & 0xffffu) : bits;
}

__global__ void adamw_count_kernel(std::int32_t* num_steps, const float* gradient_factor) {
  if (is_finite(gradient_factor)) *num_steps += 1;
}

// For states M in f32 or bf16. A thread updates 4 elements, which share one set of random words, or one.
template <int width, class T, class G, class M>
__global__ void adamw_kernel(T* parameter, float* master, const G* gradient, M* m, M* v, const float* gradient_factor,
                             const std::int32_t* num_steps, Update u, std::int64_t size) {
  if (!is_finite(gradient_factor)) return;
  __shared__ float corrections[2];
  const std::int32_t t = *num_steps;
  if (threadIdx.x == 0) u.correct(t, corrections);
  __syncthreads();
  const float factor = gradient_factor ? *gradient_factor : 1.0f;
  for (std::int64_t i = grid_thread() * width; i < size; i += grid_threads() * width) {
    float g[width], mean[width], square[width], updated[width];
    load(gradient + i, g);
    load(m + i, mean);
    load(v + i, square);
    if (master)
      load(master + i, updated);
    else
      load(parameter + i, updated);
#pragma unroll
    for (int j = 0; j < width; ++j) u.apply(g[j] * factor, mean[j], square[j], updated[j], corrections);
    if constexpr (sizeof(M) < sizeof(float)) {
      const Philox random = state_words((u.first + i) / 4, u.keys, u.op, t);
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const std::uint32_t word = random.words[width == 4 ? j : i % 4];
        mean[j] = rounded_at_random(mean[j], word);
        square[j] = rounded_at_random(square[j], word >> 16);
      }
    }
    store(mean, m + i);
    store(square, v + i);
    if (master) store(updated, master + i);
    if (sizeof(T) < sizeof(float) && !master) {
      const Philox random = rounding_words((u.first + i) / 4, u.keys, u.op, t);
#pragma unroll
      for (int j = 0; j < width; ++j) updated[j] = rounded_at_random(updated[j], random.words[width == 4 ? j : i % 4]);
    }
    store(updated, parameter + i);
  }
}

constexpr int per_lane = 8;  // a warp updates a block of states, each lane 8 elements
static_assert(per_lane * 32 == adamw_block);

// The largest magnitude in the warp's block. As integers the bits of magnitudes are in ascending order, with NaN above all others. Values
// that are not signed are magnitudes already.
template <bool is_signed>
__device__ inline float largest_magnitude(const float (&values)[per_lane]) {
  const auto magnitude = [&](int j) { return __float_as_uint(is_signed ? fabsf(values[j]) : values[j]); };
  std::uint32_t largest = 0;
#pragma unroll
  for (int j = 0; j < per_lane; j += 2) largest = largest_of(largest, magnitude(j), magnitude(j + 1));
  return __uint_as_float(warp_reduce<Max>(largest));
}

// Load and store a lane's elements, `count` of them: in vectors if there are 8 and they are aligned.
template <bool in_vectors, class T>
__device__ inline void load_part(const T* from, int count, float (&to)[per_lane]) {
  if constexpr (in_vectors) {
    load(from, to);
  } else {
#pragma unroll
    for (int j = 0; j < per_lane; ++j) to[j] = j < count ? to_float(from[j]) : 0.0f;
  }
}
template <bool in_vectors, class T>
__device__ inline void store_part(const float (&from)[per_lane], int count, T* to) {
  if constexpr (in_vectors) {
    store(from, to);
  } else {
#pragma unroll
    for (int j = 0; j < per_lane; ++j)
      if (j < count) to[j] = from_float<T>(from[j]);
  }
}
// Stores bf16 elements, the upper halves of these values.
template <bool in_vectors, class T>
__device__ inline void store_upper_halves(const float (&from)[per_lane], int count, T* to) {
  if constexpr (in_vectors && sizeof(T) < sizeof(float)) {
    Vector<T, per_lane> vector;
#pragma unroll
    for (int i = 0; i < per_lane / 2; ++i)
      vector.words[i] = select_bytes<0x7632>(__float_as_uint(from[2 * i]), __float_as_uint(from[2 * i + 1]));
    store_vector(vector, to);
  } else {
#pragma unroll
    for (int j = 0; j < per_lane; ++j)
      if (j < count) to[j] = from_float<T>(__uint_as_float(__float_as_uint(from[j]) & 0xffff0000u));
  }
}
struct Codes {
  std::uint32_t words[2] = {};

  __device__ std::uint8_t at(int j) const {
    return static_cast<std::uint8_t>(words[j / 4] >> 8 * (j % 4));
  }
  __device__ void put(int j, std::uint8_t code) {
    words[j / 4] |= std::uint32_t{code} << 8 * (j % 4);
  }
};
template <bool in_vectors>
__device__ inline Codes load_codes(const std::uint8_t* from, int count) {
  Codes codes;
  if (in_vectors) {
    const uint2 both = *reinterpret_cast<const uint2*>(from);
    codes.words[0] = both.x, codes.words[1] = both.y;
  } else {
    for (int j = 0; j < count; ++j) codes.put(j, from[j]);
  }
  return codes;
}
template <bool in_vectors>
__device__ inline void store_codes(const Codes& codes, int count, std::uint8_t* to) {
  if (in_vectors) {
    *reinterpret_cast<uint2*>(to) = uint2{codes.words[0], codes.words[1]};
  } else {
    for (int j = 0; j < count; ++j) to[j] = codes.at(j);
  }
}

struct States8 {
  std::uint8_t *m, *v;
  float *m_scales, *v_scales;
};

// A map as a function from a magnitude x to a place among the numbers: a place between n and n + 1 gives the weights of both numbers for x.
// The function is made of lines between neighbours. Their slopes only fall, so that it is the lowest of all these lines. Between one power
// of two and the next there are at most three: in a decade, in the next decade, and across the gap between them, in which the power of ten
// lies. Few lanes of a warp differ in the power of two, so that most of their reads are of the same words.
struct Places {
  static constexpr int first_octave = 127 - 24, num_octaves = 24;  // below 2^-23 there is one line, from 0 on
  static constexpr float base = 256;                               // added to places, so that the last bit of the f32 is 2^-15
  float4 ends[num_octaves];                                        // slope and offset of the octave's first line, then of its last
  float2 middles[num_octaves];                                     // of the line across the power of ten, if there is one

  // Fills the table from the magnitudes. All threads of the block must call it.
  template <bool is_signed>
  __device__ void fill(const float* map) {
    for (int i = static_cast<int>(threadIdx.x); i < num_octaves; i += static_cast<int>(blockDim.x)) {
      const float begin = i == 0 ? 0.0f : __uint_as_float(static_cast<std::uint32_t>(i + first_octave) << 23);
      const float end = __uint_as_float((static_cast<std::uint32_t>(i + first_octave + 1) << 23) - 1);
      float middle = begin;
      for (const float power : {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f})
        if (begin < power && power < end) middle = power;
      const float2 one = line<is_signed>(map, begin), other = line<is_signed>(map, end);
      ends[i] = float4{one.x, one.y, other.x, other.y};
      middles[i] = line<is_signed>(map, middle);
    }
  }
  // Stochastic rounding of x in [0, largest]: the number of the magnitude below or above x, chosen by 15 random bits such that the mean is
  // x: bits 1 to 15 of `random`. The number is byte 2 of the result, in ascending order. Places are positive, so that as integers their
  // bits are in ascending order.
  template <bool is_signed>
  __device__ std::uint32_t at_random(float x, std::uint32_t random) const {
    constexpr float last = base + (DynamicMap<is_signed>::size - 1);
    const int exponent = static_cast<int>(__float_as_uint(x) >> 23),
              octave = (exponent > first_octave ? exponent : first_octave) - first_octave;
    const float4 two = ends[octave];
    const float2 middle = middles[octave];
    const std::uint32_t lowest = smallest_of(__float_as_uint(fmaf(x, middle.x, middle.y)), __float_as_uint(fmaf(x, two.x, two.y)),
                                             __float_as_uint(fmaf(x, two.z, two.w)));
    const std::uint32_t place = lowest < __float_as_uint(last) ? lowest : __float_as_uint(last);
    return (place << 1) + (~random & 0xfffeu);
  }
  static constexpr std::uint32_t first_number = 0x87010000u;  // the least that at_random() returns for number 1

 private:
  // Slope and offset of the line through the two magnitudes around x.
  template <bool is_signed>
  __device__ static float2 line(const float* map, float x) {
    constexpr int last = DynamicMap<is_signed>::size - 1;
    int below = magnitude_below<is_signed>(map, x < map[last] ? x : map[last]);
    if (below == last) below = last - 1;
    const float slope = 1.0f / (map[below + 1] - map[below]);
    return float2{slope, fmaf(-map[below], slope, base + static_cast<float>(below))};
  }
};

// The codes of four signed numbers, 127 plus or minus the number of each's magnitude, which is byte 2 of its place.
__device__ inline std::uint32_t signed_codes(const std::uint32_t (&places)[4], const float* values) {
  const auto bits = [&](int j) { return __float_as_uint(values[j]); };
  const std::uint32_t negative = select_bytes<0x5410>(select_bytes<0x00fb>(bits(0), bits(1)), select_bytes<0x00fb>(bits(2), bits(3)));
  // A negative one's byte n becomes 127 ^ n = 127 - n, another's (128 ^ n) - 1 = 127 + n; no byte borrows from the next.
  return (third_bytes(places) ^ negative ^ 0x80808080u) - (~negative & 0x01010101u);
}

struct Maps {
  DynamicMap<true> of_m;
  DynamicMap<false> of_v;
};

struct Tables {
  float signed_values[256], unsigned_values[256], corrections[2];
  Places signed_places, unsigned_places;
};

// Updates one block of states; all lanes of the warp call it. in_vectors: the block has all 256 elements. Otherwise the lane has `count`
// elements, and the others count as 0.
template <bool in_vectors, class T, class G>
__device__ inline void update_block(T* parameter, float* master, const G* gradient, const States8& states, const Tables& tables,
                                    float factor, std::int32_t t, const Update& u, std::int64_t block, int count) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t first = block * adamw_block + lane * per_lane;
  float g[per_lane], updated[per_lane], mean[per_lane], square[per_lane];
  load_part<in_vectors>(gradient + first, count, g);
  if (master)
    load_part<in_vectors>(master + first, count, updated);
  else
    load_part<in_vectors>(parameter + first, count, updated);
  Codes m_codes = load_codes<in_vectors>(states.m + first, count), v_codes = load_codes<in_vectors>(states.v + first, count);
  const float m_scale = states.m_scales[block], v_scale = states.v_scales[block];
#pragma unroll
  for (int j = 0; j < per_lane; ++j) {
    mean[j] = in_vectors || j < count ? m_scale * tables.signed_values[m_codes.at(j)] : 0.0f;
    square[j] = in_vectors || j < count ? v_scale * tables.unsigned_values[v_codes.at(j)] : 0.0f;
    u.apply(g[j] * factor, mean[j], square[j], updated[j], tables.corrections);
  }
  constexpr float largest_m = signed_map.largest(), largest_v = unsigned_map.largest();
  const float new_m_scale = largest_magnitude<true>(mean) / largest_m, new_v_scale = largest_magnitude<false>(square) / largest_v;
  const float per_m = new_m_scale > 0.0f ? 1.0f / new_m_scale : 0.0f, per_v = new_v_scale > 0.0f ? 1.0f / new_v_scale : 0.0f;
  if (lane == 0) {
    states.m_scales[block] = new_m_scale;
    states.v_scales[block] = new_v_scale;
  }
  if (master) store_part<in_vectors>(updated, count, master + first);
  const bool is_rounded = sizeof(T) < sizeof(float) && !master;
#pragma unroll
  for (int four = 0; four < per_lane; four += 4) {
    const Philox random = state_words((u.first + first + four) / 4, u.keys, u.op, t);
    std::uint32_t m_places[4], v_places[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float value = square[four + j];
      m_places[j] = tables.signed_places.at_random<true>(fminf(fabsf(mean[four + j]) * per_m, largest_m), random.words[j]);
      v_places[j] = tables.unsigned_places.at_random<false>(fminf(value * per_v, largest_v), random.words[j] >> 16);
      if (value > 0.0f && v_places[j] < Places::first_number) v_places[j] = Places::first_number;
    }
    m_codes.words[four / 4] = signed_codes(m_places, mean + four);
    v_codes.words[four / 4] = third_bytes(v_places);
    if (!is_rounded) continue;
    const Philox of_parameter = rounding_words((u.first + first + four) / 4, u.keys, u.op, t);
#pragma unroll
    for (int j = 0; j < 4; ++j) updated[four + j] = __uint_as_float(raised_at_random(updated[four + j], of_parameter.words[j]));
  }
  if (is_rounded)
    store_upper_halves<in_vectors>(updated, count, parameter + first);
  else
    store_part<in_vectors>(updated, count, parameter + first);
  store_codes<in_vectors>(m_codes, count, states.m + first);
  store_codes<in_vectors>(v_codes, count, states.v + first);
}

// For states in 8 bits, a warp for each block. The last block may be shorter.
template <class T, class G>
__global__ void __launch_bounds__(256, 4)
    adamw_8bit_kernel(T* parameter, float* master, const G* gradient, States8 states, const float* gradient_factor,
                      const std::int32_t* num_steps, Update u, Maps maps, std::int64_t size, bool is_aligned) {
  if (!is_finite(gradient_factor)) return;
  __shared__ Tables tables;
  const std::int32_t t = *num_steps;
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) {
    tables.signed_values[i] = signed_value(maps.of_m.magnitudes, static_cast<std::uint8_t>(i));
    tables.unsigned_values[i] = unsigned_value(maps.of_v.magnitudes, static_cast<std::uint8_t>(i));
  }
  tables.signed_places.fill<true>(maps.of_m.magnitudes);
  tables.unsigned_places.fill<false>(maps.of_v.magnitudes);
  if (threadIdx.x == 0) u.correct(t, tables.corrections);
  __syncthreads();
  const float factor = gradient_factor ? *gradient_factor : 1.0f;
  const std::int64_t num_blocks = (size + adamw_block - 1) / adamw_block;
  for (std::int64_t block = grid_thread() / 32; block < num_blocks; block += grid_threads() / 32) {
    const std::int64_t left = size - block * adamw_block;
    if (is_aligned && left >= adamw_block) {
      update_block<true>(parameter, master, gradient, states, tables, factor, t, u, block, per_lane);
    } else {
      const std::int64_t of_lane = left - std::int64_t(threadIdx.x % 32) * per_lane;
      const int count = of_lane >= per_lane ? per_lane : of_lane > 0 ? static_cast<int>(of_lane) : 0;
      update_block<false>(parameter, master, gradient, states, tables, factor, t, u, block, count);
    }
  }
}

// Whether all pointers are aligned to 16 bytes.
bool are_aligned(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(), [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; });
}

}  // namespace

void adamw_count(Context& context, const Tensor& num_steps, const OptionalTensor& gradient_factor) {
  launch(context, adamw_count_kernel, 1, 1, 0, num_steps.as<std::int32_t>(),
         gradient_factor ? gradient_factor->as<const float>() : nullptr);
}

void adamw(Context& context, const Tensor& parameter, const OptionalTensor& master, const Tensor& gradient, const AdamwStates& states,
           const OptionalTensor& gradient_factor, const Tensor& num_steps, const AdamwSettings& settings) {
  check_adamw(parameter, master, gradient, states, settings);
  const std::int64_t size = parameter.size();
  if (size == 0) return;
  const auto& [learning_rate, beta1, beta2, eps, weight_decay, seed, op, first] = settings;
  const float decay = float(1 - learning_rate * weight_decay);
  const Update update{float(learning_rate), float(beta1), float(beta2), float(eps), decay, beta1, beta2, rounding_keys(seed), op, first};
  float* const copy = master ? master->as<float>() : nullptr;
  const float* const factor = gradient_factor ? gradient_factor->as<const float>() : nullptr;
  const auto* const step = num_steps.as<const std::int32_t>();
  const bool is_aligned = are_aligned({parameter.data, copy, gradient.data, states.m.data, states.v.data});
  with_cuda_float("adamw", parameter.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const p = parameter.as<T>();
    with_cuda_float("adamw", gradient.dtype, [&](auto gradient_tag) {
      using G = typename decltype(gradient_tag)::type;
      const auto* const g = gradient.as<const G>();
      if (states.m.dtype == Dtype::u8) {
        const States8 in_codes{states.m.as<std::uint8_t>(), states.v.as<std::uint8_t>(), states.m_scales->as<float>(),
                               states.v_scales->as<float>()};
        constexpr std::int64_t max_blocks = 132 * 4;  // each block of threads fills its tables once
        return launch(context, adamw_8bit_kernel<T, G>, grid_for(size, 8 * adamw_block, max_blocks), 256, 0, p, copy, g, in_codes, factor,
                      step, update, Maps{signed_map, unsigned_map}, size, is_aligned);
      }
      with_cuda_float("adamw", states.m.dtype, [&](auto state_tag) {
        using M = typename decltype(state_tag)::type;
        const bool in_vectors = is_aligned && size % 4 == 0;
        launch(context, in_vectors ? adamw_kernel<4, T, G, M> : adamw_kernel<1, T, G, M>, grid_for(size, in_vectors ? 1024 : 256), 256, 0,
               p, copy, g, states.m.as<M>(), states.v.as<M>(), factor, step, update, size);
      });
    });
  });
}

}  // namespace mst::cuda
