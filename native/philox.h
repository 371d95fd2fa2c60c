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

// Ten rounds over a 128-bit counter with a 64-bit key.
MST_HOST_DEVICE inline Philox philox(Philox counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.words[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.words[2];
    counter = {{static_cast<std::uint32_t>(product1 >> 32) ^ counter.words[1] ^ key0, static_cast<std::uint32_t>(product1),
                static_cast<std::uint32_t>(product0 >> 32) ^ counter.words[3] ^ key1, static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace mst
