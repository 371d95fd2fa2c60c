// The CPU as a device: its memory, copies and threads.
#include "../device.h"

#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

namespace mst {
namespace {

// The first number in a file; the largest there is where the file says "max" or cannot be read.
std::size_t number_in(const char* path) {
  std::ifstream file(path);
  std::size_t number;
  return file >> number ? number : std::numeric_limits<std::size_t>::max();
}

// The field of /proc/meminfo in bytes.
std::size_t meminfo(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  for (std::string name, line; file >> name; std::getline(file, line))
    if (name == field + ":") return std::stoull(line) << 10;
  return std::numeric_limits<std::size_t>::max();
}

// What this process may still take of addresses (ulimit -v), of which half is left to everything else in it.
std::size_t address_space_bytes() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::numeric_limits<std::size_t>::max();
  const std::size_t used = number_in("/proc/self/statm") * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return used < limit.rlim_cur ? (limit.rlim_cur - used) / 2 : 0;
}

// What the control group of this process may still take (version 2, then version 1).
std::size_t control_group_bytes() {
  constexpr const char* files[][2] = {{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
                                      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit_path, usage_path] : files) {
    const std::size_t limit = number_in(limit_path), usage = number_in(usage_path);
    if (limit != std::numeric_limits<std::size_t>::max() && usage <= limit) return limit - usage;
  }
  return std::numeric_limits<std::size_t>::max();
}

class CpuContext final : public DeviceContext {
 public:
  explicit CpuContext(int num_threads) : num_threads_(num_threads) {}
  ~CpuContext() override {
    for (const auto& [base, bytes] : reserved_) munmap(base, bytes);
  }

  std::size_t granularity() const override {
    return 64 << 10;
  }

  char* reserve(std::size_t bytes) override {
    void* const base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) throw OutOfMemory(message_of("cpu: reserving ", bytes, " bytes of addresses failed: ", std::strerror(errno)));
    reserved_.emplace_back(base, bytes);
    return static_cast<char*>(base);
  }

  void map(char* begin, std::size_t bytes) override {
    if (mprotect(begin, bytes, PROT_READ | PROT_WRITE) != 0)
      throw OutOfMemory(message_of("cpu: mapping ", bytes, " bytes failed: ", std::strerror(errno)));
  }

  void unmap(char* begin, std::size_t bytes) override {
    madvise(begin, bytes, MADV_DONTNEED);
    mprotect(begin, bytes, PROT_NONE);
  }

  std::size_t available_bytes() const override {
    return std::min({control_group_bytes(), meminfo("MemAvailable"), address_space_bytes()});
  }

  void attach_thread() override {
    omp_set_num_threads(num_threads_);
  }
  void copy_in(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void copy_out(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void copy_within(void* to, const void* from, std::size_t bytes) override {
    std::memmove(to, from, bytes);
  }
  void fill_bytes(void* to, int value, std::size_t bytes) override {
    std::memset(to, value, bytes);
  }
  void synchronize() override {}  // ops have run when their calls return

 private:
  int num_threads_;
  std::vector<std::pair<void*, std::size_t>> reserved_;
};

}  // namespace

std::unique_ptr<DeviceContext> open_cpu(int num_threads) {
  return std::make_unique<CpuContext>(num_threads);
}

}  // namespace mst
