// See host_pages.h.
#include "host_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>
#include <vector>

#include "../runtime/memory.h"
#include "memory.h"

namespace mst::cpu {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t share = std::size_t{64} << 20;  // that a thread takes at a time
constexpr std::size_t max_threads = 16;

}  // namespace

char* map_host(std::size_t bytes) {
  const std::size_t room = host_room();
  if (bytes > room) throw OutOfMemory(message_of("the host has ", room, " bytes for this process, and ", bytes, " were asked for"));
  void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw OutOfMemory(message_of("the host: allocating ", bytes, " bytes failed: ", std::strerror(errno)));
  madvise(base, bytes, MADV_HUGEPAGE);  // advice: without it there are more pages
  madvise(base, bytes, MADV_DONTFORK);
  return static_cast<char*>(base);
}

void unmap_host(char* begin, std::size_t bytes) noexcept {
  munmap(begin, bytes);
}

void touch_host(char* begin, std::size_t bytes) {
  std::atomic<std::size_t> next = 0;
  const auto touch = [&] {
    for (std::size_t first; (first = next.fetch_add(share)) < bytes;)
      for (std::size_t at = first; at < std::min(first + share, bytes); at += page) static_cast<volatile char*>(begin)[at] = 0;
  };
  const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> others;
  try {
    for (std::size_t i = 1; i < std::min({cores, max_threads, (bytes + share - 1) / share}); ++i) others.emplace_back(touch);
  } catch (const std::system_error&) {  // no more threads: those that there are do it
  }
  touch();
  for (std::thread& other : others) other.join();
}

}  // namespace mst::cpu
