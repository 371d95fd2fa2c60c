// Host memory as the memory of the CPU device.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "../runtime/memory.h"

namespace mst::cpu {

// The most that this process could get if all that can be given back, such as files in memory, were: of the machine, or of the control
// group's limit what its processes do not hold themselves. An upper bound; memory that is past it ends the process.
std::size_t host_room();

class Memory final : public mst::Memory {
 public:
  Memory() = default;
  ~Memory() override;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::size_t granularity() const override;
  char* reserve(std::size_t bytes) override;
  void map(char* begin, std::size_t bytes) override;
  void unmap(char* begin, std::size_t bytes) override;
  std::size_t available_bytes() const override;
  char* allocate_host(std::size_t bytes) override;
  void free_host(char* begin) override;

 private:
  std::mutex mutex_;  // guards what follows
  std::vector<std::pair<void*, std::size_t>> reserved_;
  std::map<char*, std::size_t> host_;
};

}  // namespace mst::cpu
