// Philox4x32-10, a counter-based random number generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), the same
// on the host and in CUDA kernels.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MST_HOST_DEVICE __host__ __device__
#else
#define MST_HOST_DEVICE
#endif

namespace mst {

struct Philox {
  std::uint32_t words[4];
};

// The keys of all rounds. A kernel that gets them as an argument spends no instructions on making them.
struct PhiloxKeys {
  static constexpr int rounds = 10;
  std::uint32_t first[rounds], second[rounds];

  MST_HOST_DEVICE constexpr PhiloxKeys(std::uint32_t key0, std::uint32_t key1) : first(), second() {
    for (int round = 0; round < rounds; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) first[round] = key0, second[round] = key1;
  }
};

// Ten rounds over a 128-bit counter with a 64-bit key.
MST_HOST_DEVICE inline Philox philox(Philox counter, const PhiloxKeys& keys) {
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int round = 0; round < PhiloxKeys::rounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.words[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.words[2];
    counter = {{static_cast<std::uint32_t>(product1 >> 32) ^ counter.words[1] ^ keys.first[round], static_cast<std::uint32_t>(product1),
                static_cast<std::uint32_t>(product0 >> 32) ^ counter.words[3] ^ keys.second[round], static_cast<std::uint32_t>(product0)}};
  }
  return counter;
}
MST_HOST_DEVICE inline Philox philox(Philox counter, std::uint32_t key0, std::uint32_t key1) {
  return philox(counter, PhiloxKeys(key0, key1));
}

}  // namespace mst
