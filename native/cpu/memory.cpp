// See memory.h.
#include "memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

namespace mst::cpu {
namespace {

// The first number in a file; the largest size_t if the file says "max" or cannot be read.
std::size_t number_in(const char* path) {
  std::ifstream file(path);
  std::size_t number;
  return file >> number ? number : std::numeric_limits<std::size_t>::max();
}

// A field of /proc/meminfo, in bytes.
std::size_t meminfo(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  for (std::string name, line; file >> name; std::getline(file, line))
    if (name == field + ":") return std::stoull(line) << 10;
  return std::numeric_limits<std::size_t>::max();
}

// Half of the addresses that this process may still use (ulimit -v); the other half is left to everything else in it.
std::size_t address_space_bytes() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::numeric_limits<std::size_t>::max();
  const std::size_t used = number_in("/proc/self/statm") * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return used < limit.rlim_cur ? (limit.rlim_cur - used) / 2 : 0;
}

// The memory that the control group of this process may still use (version 2, then version 1).
std::size_t control_group_bytes() {
  constexpr const char* files[][2] = {{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
                                      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit_path, usage_path] : files) {
    const std::size_t limit = number_in(limit_path), usage = number_in(usage_path);
    if (limit != std::numeric_limits<std::size_t>::max() && usage <= limit) return limit - usage;
  }
  return std::numeric_limits<std::size_t>::max();
}

}  // namespace

Memory::~Memory() {
  for (const auto& [base, bytes] : reserved_) munmap(base, bytes);
  for (const auto& [base, bytes] : host_) munmap(base, bytes);
}

std::size_t Memory::granularity() const {
  return 64 << 10;
}

char* Memory::reserve(std::size_t bytes) {
  void* const base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw OutOfMemory(message_of("cpu: reserving ", bytes, " bytes of addresses failed: ", std::strerror(errno)));
  const std::lock_guard lock(mutex_);
  reserved_.emplace_back(base, bytes);
  return static_cast<char*>(base);
}

void Memory::map(char* begin, std::size_t bytes) {
  if (mprotect(begin, bytes, PROT_READ | PROT_WRITE) != 0)
    throw OutOfMemory(message_of("cpu: mapping ", bytes, " bytes failed: ", std::strerror(errno)));
}

void Memory::unmap(char* begin, std::size_t bytes) {
  madvise(begin, bytes, MADV_DONTNEED);
  mprotect(begin, bytes, PROT_NONE);
}

char* Memory::allocate_host(std::size_t bytes) {
  void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw OutOfMemory(message_of("cpu: allocating ", bytes, " bytes failed: ", std::strerror(errno)));
  const std::lock_guard lock(mutex_);
  host_.emplace(base, bytes);
  return static_cast<char*>(base);
}

void Memory::free_host(char* begin) {
  const std::lock_guard lock(mutex_);
  const auto found = host_.find(begin);
  MST_CHECK(found != host_.end(), "cpu: no host memory begins at ", static_cast<void*>(begin));
  munmap(found->first, found->second);
  host_.erase(found);
}

std::size_t Memory::available_bytes() const {
  return std::min({control_group_bytes(), meminfo("MemAvailable"), address_space_bytes()});
}

}  // namespace mst::cpu
