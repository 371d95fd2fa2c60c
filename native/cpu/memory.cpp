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

#include "host_pages.h"

namespace mst::cpu {
namespace {

// A field of a file of fields and numbers; the largest size_t if there is none.
std::size_t field_of(const char* path, const std::string& field) {
  std::ifstream file(path);
  std::size_t number;
  for (std::string name; file >> name; file.ignore(std::numeric_limits<std::streamsize>::max(), '\n'))
    if (name == field && file >> number) return number;
  return std::numeric_limits<std::size_t>::max();
}

// The first number in a file; the largest size_t if the file says "max" or cannot be read.
std::size_t number_in(const char* path) {
  std::ifstream file(path);
  std::size_t number;
  return file >> number ? number : std::numeric_limits<std::size_t>::max();
}

// A field of /proc/meminfo, in bytes.
std::size_t meminfo(const std::string& field) {
  const std::size_t kibibytes = field_of("/proc/meminfo", field + ":");
  return kibibytes == std::numeric_limits<std::size_t>::max() ? kibibytes : kibibytes << 10;
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

std::size_t host_room() {
  constexpr const char* files[][3] = {{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"},
                                      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"}};
  std::size_t room = meminfo("MemTotal");
  for (const auto& [limit_path, stat_path, field] : files) {
    const std::size_t limit = number_in(limit_path), used = field_of(stat_path, field);
    if (used <= limit && limit != std::numeric_limits<std::size_t>::max()) room = std::min(room, limit - used);
  }
  return room;
}

Memory::~Memory() {
  for (const auto& [base, bytes] : reserved_) munmap(base, bytes);
  for (const auto& [begin, bytes] : host_) unmap_host(begin, bytes);
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
  char* const begin = map_host(bytes);
  const std::lock_guard lock(mutex_);
  host_.emplace(begin, bytes);
  return begin;
}

void Memory::free_host(char* begin) {
  const std::lock_guard lock(mutex_);
  const auto found = host_.find(begin);
  MST_CHECK(found != host_.end(), "cpu: no host memory begins at ", static_cast<void*>(begin));
  unmap_host(found->first, found->second);
  host_.erase(found);
}

std::size_t Memory::available_bytes() const {
  return std::min({control_group_bytes(), meminfo("MemAvailable"), address_space_bytes()});
}

}  // namespace mst::cpu
