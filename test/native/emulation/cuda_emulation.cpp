// The scheduler of emulated blocks; see cuda_emulation.h.
#include "cuda_emulation.h"

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "fiber.h"

namespace emulation {
namespace {

constexpr int warp_size = 32;
constexpr std::size_t largest_value = 32;  // bytes that a warp function exchanges a lane

struct Thread {
  enum State { ready, at_barrier, in_exchange, done } state = done;
  dim3 index;
  int linear = 0;
  Where where{};
  unsigned mask = 0;
  // What this lane gave in its last two exchanges: a lane may begin the next before another has read this one.
  std::array<std::array<unsigned char, largest_value>, 2> given{};
  unsigned num_exchanges = 0;
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    int group;
  };
  std::vector<Copy> copies;  // begun, not finished
  int num_groups = 0;
  Fiber fiber;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // as many as the largest block so far
  int num_threads = 0;
  Thread* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::vector<unsigned char> shared;
  std::exception_ptr error;  // thrown in a fiber, from where nothing can be thrown on
};
Block block;

std::string place(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

void body(void* argument) {
  Thread& self = *static_cast<Thread*>(argument);
  try {
    (*block.kernel)();
  } catch (...) {
    block.error = std::current_exception();
  }
  self.state = Thread::done;
  self.fiber.leave_for_good();
}

void wait_as(Thread::State state, const Where& where) {
  Thread& self = *block.running;
  self.where = where;
  self.state = state;
  self.fiber.leave();
}

// Lets the block go on when all of its threads wait at one barrier.
bool release_barrier() {
  const Thread& first = *block.threads[0];
  for (int i = 0; i < block.num_threads; ++i)
    if (block.threads[i]->state != Thread::at_barrier || !same_place(block.threads[i]->where, first.where)) return false;
  for (int i = 0; i < block.num_threads; ++i) block.threads[i]->state = Thread::ready;
  return true;
}

// Lets the lanes of each mask go on that all wait in one exchange, in the warp that begins at thread `begin`.
bool release_exchanges(int begin) {
  bool any = false;
  const int num_lanes = std::min(warp_size, block.num_threads - begin);
  for (int i = 0; i < num_lanes; ++i) {
    const Thread& leader = *block.threads[begin + i];
    if (leader.state != Thread::in_exchange) continue;
    const auto takes_part = [&](int lane) { return (leader.mask >> lane & 1) != 0; };
    bool complete = true;
    for (int lane = 0; lane < warp_size; ++lane) {
      if (!takes_part(lane)) continue;
      const Thread* const other = lane < num_lanes ? block.threads[begin + lane].get() : nullptr;
      complete =
          complete && other && other->state == Thread::in_exchange && other->mask == leader.mask && same_place(other->where, leader.where);
    }
    if (!complete) continue;
    for (int lane = 0; lane < num_lanes; ++lane)
      if (takes_part(lane)) block.threads[begin + lane]->state = Thread::ready;
    any = true;
  }
  return any;
}

// Runs each lane of a warp until it waits or ends, and again while an exchange lets some go on.
void run_warp(int begin) {
  const int num_lanes = std::min(warp_size, block.num_threads - begin);
  do {
    for (int i = 0; i < num_lanes; ++i) {
      Thread& thread = *block.threads[begin + (options.reversed ? num_lanes - 1 - i : i)];
      if (thread.state != Thread::ready) continue;
      block.running = &thread;
      thread.fiber.enter();
      if (block.error) std::rethrow_exception(std::exchange(block.error, nullptr));
    }
  } while (release_exchanges(begin));
}

[[noreturn]] void report_deadlock() {
  std::string text = "emulation: no thread can go on in block (" + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + ")";
  int told = 0;
  for (int i = 0; i < block.num_threads && told < 4; ++i) {
    const Thread& thread = *block.threads[i];
    if (i > 0 && thread.state == block.threads[i - 1]->state && same_place(thread.where, block.threads[i - 1]->where)) continue;
    ++told;
    text += "; thread " + std::to_string(i) + (thread.state == Thread::done ? " has ended" : " waits at " + place(thread.where));
  }
  MST_FAIL(text);
}

void run_block() {
  for (int i = 0; i < block.num_threads; ++i) {
    Thread& thread = *block.threads[i];
    const unsigned linear = static_cast<unsigned>(i);
    thread.index = dim3(linear % blockDim.x, linear / blockDim.x % blockDim.y, linear / blockDim.x / blockDim.y);
    thread.linear = i;
    thread.state = Thread::ready;
    thread.num_exchanges = 0;
    thread.copies.clear();
    thread.num_groups = 0;
    thread.fiber.prepare(body, &thread);
  }
  const int num_warps = (block.num_threads + warp_size - 1) / warp_size;
  for (;;) {
    for (int i = 0; i < num_warps; ++i) run_warp(warp_size * (options.reversed ? num_warps - 1 - i : i));
    bool all_done = true;
    for (int i = 0; i < block.num_threads; ++i) all_done = all_done && block.threads[i]->state == Thread::done;
    if (all_done) return;
    if (!release_barrier()) report_deadlock();
  }
}

}  // namespace

const dim3& thread_index() {
  return block.running->index;
}
void* dynamic_shared() {
  return block.shared.data();
}
int lane() {
  return block.running->linear % warp_size;
}

void synchronize_block(const Where& where) {
  wait_as(Thread::at_barrier, where);
}

const void* exchange(unsigned mask, const void* mine, std::size_t bytes, int source, const Where& where) {
  Thread& self = *block.running;
  MST_CHECK(bytes <= largest_value, "emulation: ", bytes, " bytes in a warp function");
  MST_CHECK(mask >> lane() & 1 && source >= 0 && source < warp_size && mask >> source & 1, "emulation: the mask at ", place(where),
            " leaves out lane ", lane(), " or its source ", source);
  const unsigned turn = self.num_exchanges++ % 2;
  std::memcpy(self.given[turn].data(), mine, bytes);
  self.mask = mask;
  wait_as(Thread::in_exchange, where);
  return block.threads[self.linear / warp_size * warp_size + source]->given[turn].data();
}

const void* given_by(int lane) {
  const Thread& self = *block.running;
  return block.threads[self.linear / warp_size * warp_size + lane]->given[(self.num_exchanges - 1) % 2].data();
}

void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Where& where) {
  std::uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  exchange(~0u, mine, sizeof mine, 0, where);
  const auto element = [](int lane, int word, int half) {
    std::uint32_t words[6];
    std::memcpy(words, given_by(lane), sizeof words);
    return __uint_as_float(half ? words[word] & 0xffff0000u : words[word] << 16);
  };
  const int g = lane() / 4, t = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int column = 2 * t + i % 2;
    for (int k = 0; k < 16; ++k)
      d[i] += element(4 * g + k % 8 / 2, i / 2 + 2 * (k / 8), k % 2) * element(4 * column + k % 8 / 2, 4 + k / 8, k % 2);
  }
}

void load_matrices(std::uint32_t (&r)[4], const __nv_bfloat16* row, bool is_transposed, const Where& where) {
  MST_CHECK(reinterpret_cast<std::uintptr_t>(row) % 16 == 0, "emulation: ldmatrix at ", place(where), ": a row is not aligned to 16 bytes");
  exchange(~0u, row, 16, 0, where);  // each lane gives its row before anybody goes on
  const auto element = [](int lane, int i) {
    std::uint16_t words[8];
    std::memcpy(words, given_by(lane), sizeof words);
    return std::uint32_t{words[i]};
  };
  const int g = lane() / 4, t = lane() % 4;
  for (int m = 0; m < 4; ++m)
    r[m] = is_transposed ? element(8 * m + 2 * t, g) | element(8 * m + 2 * t + 1, g) << 16
                         : element(8 * m + g, 2 * t) | element(8 * m + g, 2 * t + 1) << 16;
}

void copy_async(void* to, const void* from, int bytes, const Where& where) {
  for (const void* pointer : {static_cast<const void*>(to), from})
    MST_CHECK(reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0, "emulation: cp.async at ", place(where), ": not aligned to 16 bytes");
  Thread& self = *block.running;
  self.copies.push_back({to, from, static_cast<std::size_t>(bytes), self.num_groups});
}

void commit_copies() {
  ++block.running->num_groups;
}

void wait_for_copies(int pending) {
  Thread& self = *block.running;
  std::erase_if(self.copies, [&](const Thread::Copy& copy) {
    if (copy.group + pending >= self.num_groups) return false;
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, copy.bytes);
    return true;
  });
}

void run_grid(dim3 grid, dim3 block_dim, std::size_t shared_bytes, const std::function<void()>& kernel) {
  MST_CHECK(grid.x > 0 && grid.x <= 0x7fffffff && grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535 && block_dim.x > 0 &&
                block_dim.y > 0 && block_dim.z > 0 && block_dim.z <= 64 && block_dim.x * block_dim.y * block_dim.z <= 1024 &&
                shared_bytes <= options.shared_bytes,
            "emulation: not every GPU takes a grid of (", grid.x, ",", grid.y, ",", grid.z, "), blocks of (", block_dim.x, ",", block_dim.y,
            ",", block_dim.z, ") and ", shared_bytes, " bytes of shared memory");
  gridDim = grid;
  blockDim = block_dim;
  block.kernel = &kernel;
  block.num_threads = static_cast<int>(block_dim.x * block_dim.y * block_dim.z);
  while (static_cast<int>(block.threads.size()) < block.num_threads) block.threads.push_back(std::make_unique<Thread>());
  const unsigned num_blocks = grid.x * grid.y * grid.z;
  for (unsigned i = 0; i < num_blocks; ++i) {
    const unsigned linear = options.reversed ? num_blocks - 1 - i : i;
    blockIdx = dim3(linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y);
    block.shared.assign(shared_bytes, 0xff);
    block.shared.shrink_to_fit();  // so that AddressSanitizer sees its end
    run_block();
  }
}

}  // namespace emulation
