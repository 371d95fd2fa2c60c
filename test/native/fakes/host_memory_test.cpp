// Pinned memory of the host, on a CUDA runtime of our own: pages of this process, all there before they are pinned; cudaHostAlloc's where
// pages cannot be pinned; both numbers where there are too few.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/memory.h"
#include "cuda/memory.h"

namespace mst::cuda {
namespace {

constexpr std::size_t page = 4096, bytes = 5 * 1000 * page + 123;

// Whether all pages of [begin, begin + bytes) are in memory.
bool are_there(char* begin) {
  std::vector<unsigned char> resident((bytes + page - 1) / page);
  if (mincore(begin, bytes, resident.data()) != 0) return false;
  for (const unsigned char each : resident)
    if (!(each & 1)) return false;
  return true;
}

class HostMemory : public testing::Test {
 protected:
  ~HostMemory() override {
    for (const char* const variable : {"FAKE_CUDA_HOST_BYTES", "FAKE_CUDA_PINS_NO_PAGES"}) unsetenv(variable);
  }
  std::string refusal(std::size_t wanted) {
    try {
      memory.allocate_host(wanted);
    } catch (const OutOfMemory& error) {
      return error.what();
    }
    return "";
  }
  Memory memory{0};
};

TEST_F(HostMemory, IsThereAndZeroWhenItIsPinned) {
  char* const begin = memory.allocate_host(bytes);
  EXPECT_TRUE(are_there(begin));
  for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(begin[i], 0) << i;
  begin[bytes - 1] = 1;
  memory.free_host(begin);
  EXPECT_FALSE(are_there(begin));
  EXPECT_THROW(memory.free_host(begin), Error);
}

TEST_F(HostMemory, IsCudasOwnWherePagesCannotBePinned) {
  setenv("FAKE_CUDA_PINS_NO_PAGES", "1", 1);
  char* const begin = memory.allocate_host(bytes);
  begin[bytes - 1] = 1;
  memory.free_host(begin);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(HostMemory, ThatIsTooLittleIsRefusedAndLessServes) {
  setenv("FAKE_CUDA_HOST_BYTES", "1000000", 1);
  for (const char* const pins_none : {"0", "1"}) {
    setenv("FAKE_CUDA_PINS_NO_PAGES", pins_none, 1);
    EXPECT_EQ(refusal(1000001), "cuda: 1000001 bytes could not be pinned: out of memory");
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    memory.free_host(memory.allocate_host(1000000));
  }
  const std::string told = refusal(std::size_t{1} << 52);
  EXPECT_EQ(told.find("the host has "), 0) << told;
  EXPECT_NE(told.find(" bytes for this process, and 4503599627370496 were asked for"), std::string::npos) << told;
}

}  // namespace
}  // namespace mst::cuda
