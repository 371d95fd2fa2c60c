// How the CPU's hot loops are vectorized.
//
// MST_CLONES before a function compiles it for x86-64-v2 (the build's default), v3 and v4; the loader picks one for the machine. Everything
// that the function calls must be inlined into it. OpenMP regions must stay outside: their bodies become functions of their own, which are
// not cloned. Compilers do not reorder float sums, so sums run over num_lanes accumulators. There are always as many, so that the bits are
// the same on every machine with the same instruction set.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MST_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else  // the loader resolves clones before a sanitizer is ready
#define MST_CLONES
#endif
#define MST_INLINE [[gnu::always_inline]] inline
// Before a loop whose outputs either do not overlap its inputs or equal them, element by element. Without it the compiler checks for
// overlap and runs calls in place as scalar loops.
#define MST_INDEPENDENT _Pragma("GCC ivdep")

namespace mst::cpu {

constexpr int num_lanes = 32;

// Σ term(i) for i in [0, n), in the compute type S. Lane i mod num_lanes takes element i. The lanes are added pairwise at the end.
template <class S, class Term>
MST_INLINE S lane_sum(std::int64_t n, const Term& term) {
  S lanes[num_lanes] = {};
  std::int64_t i = 0;
  for (; i + num_lanes <= n; i += num_lanes)
    for (int lane = 0; lane < num_lanes; ++lane) lanes[lane] += term(i + lane);
  for (int lane = 0; i + lane < n; ++lane) lanes[lane] += term(i + lane);
  for (int half = num_lanes / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// max term(i) for i in [0, n); -infinity for n = 0. Ignores NaN.
template <class S, class Term>
MST_INLINE S lane_max(std::int64_t n, const Term& term) {
  S lanes[num_lanes];
  for (S& lane : lanes) lane = -static_cast<S>(__builtin_inf());
  std::int64_t i = 0;
  for (; i + num_lanes <= n; i += num_lanes)
    for (int lane = 0; lane < num_lanes; ++lane) {
      const S value = term(i + lane);
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  for (int lane = 0; i + lane < n; ++lane) {
    const S value = term(i + lane);
    lanes[lane] = value > lanes[lane] ? value : lanes[lane];
  }
  for (int half = num_lanes / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
  return lanes[0];
}

}  // namespace mst::cpu
