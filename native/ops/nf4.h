// Weights in 4 bits: NF4 with its double quantisation (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), in the layout of bitsandbytes.
#pragma once

#include "../dynamic_map.h"
#include "../runtime/fields.h"
#include "../runtime/kernel.h"

namespace mst {

constexpr std::int64_t nf4_block = 64;          // elements per block
constexpr std::int64_t nf4_blocks_group = 256;  // blocks per group

// n elements in B = ⌈n / 64⌉ blocks; the last block and the last group may be shorter.
//   element i = value(codes[i]) * largest(i / 64)
//   largest(b) = map(absmax[b]) * scales[b / 256] + offset   product and sum rounded to f32 one after the other
struct Nf4 {
  Tensor codes;   // (⌈n / 2⌉,) u8: two elements per byte, the first in the high half; indices of Nf4Values
  Tensor absmax;  // (B,) u8: codes of the dynamic map, except that 255 is 1; see nf4_absmax_value
  Tensor scales;  // (⌈B / 256⌉,) f32
  Tensor offset;  // (1,) f32

  static constexpr std::tuple fields{Field{"codes", &Nf4::codes}, Field{"absmax", &Nf4::absmax}, Field{"scales", &Nf4::scales},
                                     Field{"offset", &Nf4::offset}};
};

// Quantises x (n,), a contiguous f32, bf16 or (CPU) f64 tensor that is read as f32. Each element, divided by the largest magnitude of its
// block, is rounded to the nearest of 16 values. The offset is the mean of these largest magnitudes. Less the offset and divided by the
// largest of their group, they are rounded to the nearest number of the dynamic map. If an element is not finite, no element of the result
// is. largest (B,) f32 is overwritten.
KERNEL(nf4_quantize, const Tensor& x, const Nf4& to, const Tensor& largest);

// y (n,) = the elements of `from`, computed in f32, rounded once. y is contiguous, f32, bf16 or (CPU) f64.
KERNEL(nf4_dequantize, const Nf4& from, const Tensor& y);

// Throw if shapes or dtypes of the operands do not match.
void check_nf4_quantize(const Tensor& x, const Nf4& to, const Tensor& largest);
void check_nf4_dequantize(const Nf4& from, const Tensor& y);

// The 16 values (appendix E of the paper), and the midpoints between neighbours.
struct Nf4Values {
  float values[16] = {-1.0f,
                      -0.6961928009986877f,
                      -0.5250730514526367f,
                      -0.39491748809814453f,
                      -0.28444138169288635f,
                      -0.18477343022823334f,
                      -0.09105003625154495f,
                      0.0f,
                      0.07958029955625534f,
                      0.16093020141124725f,
                      0.24611230194568634f,
                      0.33791524171829224f,
                      0.44070982933044434f,
                      0.5626170039176941f,
                      0.7229568362236023f,
                      1.0f};
  float middles[15];

  constexpr Nf4Values() : middles() {
    for (int i = 0; i < 15; ++i) middles[i] = static_cast<float>((double(values[i]) + double(values[i + 1])) / 2);
  }
  // The index of the nearest value; the lower one if two are equally near.
  MST_HOST_DEVICE std::uint8_t code(float x) const {
    std::uint8_t number = 0;
    for (const float middle : middles) number = static_cast<std::uint8_t>(number + (x > middle ? 1 : 0));
    return number;
  }
};

inline constexpr Nf4Values nf4_values;

// The nearest code for x in [-1, 1], and the value of a code.
MST_HOST_DEVICE inline std::uint8_t nf4_absmax_code(const float* map, float x) {
  const float magnitude = scaled_magnitude(x < 0 ? -x : x, 1.0f);
  int number = magnitude_below<true>(map, magnitude);
  if (number == DynamicMap<true>::size - 1) {
    if (x > 0 && magnitude > (map[number] + 1.0f) / 2) return 255;
  } else if (magnitude - map[number] > map[number + 1] - magnitude) {
    ++number;
  }
  return signed_code(number, x < 0);
}
MST_HOST_DEVICE inline float nf4_absmax_value(const float* map, std::uint8_t code) {
  return code == 255 ? 1.0f : signed_value(map, code);
}

// 1 / largest; 0 for a block of zeros.
MST_HOST_DEVICE inline float nf4_inverse(float largest) {
  return largest > 0 ? 1.0f / largest : 0.0f;
}

}  // namespace mst
