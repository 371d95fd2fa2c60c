// The dynamic map of Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization" (arXiv 2110.02861): 8 bits for a number in [-1,
// 1] or [0, 1], with steps that shrink toward zero. Used for optimizer states and for the scales of NF4.
//
// There are seven decades, (10^(i-7), 10^(i-6)] for i = 0 to 6. Decade i is cut into 2^i equal parts for signed numbers, 2^(i+1) for
// unsigned ones. Each part is represented by its midpoint, and 0 by itself. The largest magnitude is the last midpoint, so that gaps only
// grow. Magnitudes are numbered from 0 upwards: part j of decade i has number 2^i + j (signed) or 2^(i+1) - 1 + j (unsigned). The code of
// an unsigned number is the number of its magnitude; that of a signed number is 127 plus or minus it.
#pragma once

#include <cstdint>

#include "philox.h"

namespace mst {

// The magnitudes by number: 128 for signed numbers, 255 for unsigned ones.
template <bool is_signed>
struct DynamicMap {
  static constexpr int size = is_signed ? 128 : 255, decades = 7;
  float magnitudes[size];

  MST_HOST_DEVICE static constexpr int parts_of(int decade) {
    return 1 << (is_signed ? decade : decade + 1);
  }
  MST_HOST_DEVICE static constexpr int first_of(int decade) {
    return is_signed ? parts_of(decade) : parts_of(decade) - 1;
  }

  constexpr DynamicMap() : magnitudes() {
    double power = 1e-6;  // the upper end of decade i
    for (int i = 0; i < decades; ++i, power *= 10)
      for (int j = 0; j < parts_of(i); ++j) magnitudes[first_of(i) + j] = static_cast<float>(power * (0.1 + 0.9 * (j + 0.5) / parts_of(i)));
  }
  MST_HOST_DEVICE constexpr float largest() const {
    return magnitudes[size - 1];
  }
};

inline constexpr DynamicMap<true> signed_map;
inline constexpr DynamicMap<false> unsigned_map;

// The number of the largest magnitude of `map` that is not above x, for x in [0, largest].
template <bool is_signed>
MST_HOST_DEVICE inline int magnitude_below(const float* map, float x) {
  using Map = DynamicMap<is_signed>;
  // Within a decade the parts are equal, so that the place is linear in x. Below the decade's first midpoint it is the last place of the
  // decade before.
  int decade = 0;
  float per_unit = 1e6f;
  if (x > 1e-6f) decade = 1, per_unit = 1e5f;
  if (x > 1e-5f) decade = 2, per_unit = 1e4f;
  if (x > 1e-4f) decade = 3, per_unit = 1e3f;
  if (x > 1e-3f) decade = 4, per_unit = 1e2f;
  if (x > 1e-2f) decade = 5, per_unit = 1e1f;
  if (x > 1e-1f) decade = 6, per_unit = 1.0f;
  const float parts = static_cast<float>(Map::parts_of(decade));
  const float place = (x * per_unit - 0.1f) * (parts * (1.0f / 0.9f)) + 0.5f;  // part j has place j + 1; below the first midpoint: 0
  int number = Map::first_of(decade) - 1 + (place > 0.0f ? static_cast<int>(place) : 0);
  number = number > Map::size - 1 ? Map::size - 1 : number;
  if (number > 0 && map[number] > x) return number - 1;  // the linear formula was rounded
  return number < Map::size - 1 && map[number + 1] <= x ? number + 1 : number;
}

// Stochastic rounding of x in [0, largest]: the number of the magnitude below or above x, chosen by 16 random bits such that the mean is x.
template <bool is_signed>
MST_HOST_DEVICE inline int magnitude_at_random(const float* map, float x, std::uint32_t random) {
  const int below = magnitude_below<is_signed>(map, x);
  if (below == DynamicMap<is_signed>::size - 1) return below;
  const float from = map[below], to = map[below + 1];
  return below + (static_cast<float>(random & 0xFFFFu) * (1.0f / 65536) * (to - from) < x - from ? 1 : 0);
}

MST_HOST_DEVICE inline std::uint8_t signed_code(int magnitude, bool is_negative) {
  return static_cast<std::uint8_t>(is_negative ? 127 - magnitude : 127 + magnitude);
}
// The value of a code. 255 is no code of this map; it is read as 254.
MST_HOST_DEVICE inline float signed_value(const float* map, std::uint8_t code) {
  const int offset = static_cast<int>(code < 255 ? code : 254) - 127;
  return offset < 0 ? -map[-offset] : map[offset];
}
MST_HOST_DEVICE inline float unsigned_value(const float* map, std::uint8_t code) {
  return map[code < 255 ? code : 254];
}

// min(x / scale, 1); 0 if scale is 0.
MST_HOST_DEVICE inline float scaled_magnitude(float x, float scale) {
  const float scaled = scale > 0 ? x / scale : 0.0f;
  return scaled < 1.0f ? scaled : 1.0f;
}
// The code of an unsigned number. A positive value never gets code 0.
MST_HOST_DEVICE inline std::uint8_t positive_code(int magnitude, float value) {
  return static_cast<std::uint8_t>(magnitude == 0 && value > 0 ? 1 : magnitude);
}

}  // namespace mst
