// The scheduler of emulated blocks; see cuda_emulation.h.
#include "cuda_emulation.h"

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "runtime/check.h"

namespace emulation {
namespace {

constexpr int warp_size = 32;
constexpr std::size_t largest_value = 32;  // bytes that a warp function exchanges a lane

struct Thread {
  enum State { ready, at_barrier, at_cluster_barrier, in_exchange, done } state = done;
  dim3 index, block;
  int linear = 0;  // within its block
  int rank = 0;    // its block's in the cluster
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

// Blocks that run at the same time: one, or those of a cluster.
struct Cluster {
  std::vector<std::unique_ptr<Thread>> threads;  // a block's after another's; as many as the largest cluster so far
  int num_blocks = 0, block_threads = 0;
  Thread* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  std::vector<std::vector<unsigned char>> shared;  // of each block
  std::exception_ptr error;                        // thrown in a fiber, from where nothing can be thrown on

  int num_threads() const {
    return num_blocks * block_threads;
  }
  // The thread `linear` of the running thread's block.
  Thread& neighbour(int linear) const {
    return *threads[static_cast<std::size_t>(running->rank * block_threads + linear)];
  }
};
Cluster cluster;

std::string place(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

void body(void* argument) {
  Thread& self = *static_cast<Thread*>(argument);
  try {
    (*cluster.kernel)();
  } catch (...) {
    cluster.error = std::current_exception();
  }
  self.state = Thread::done;
  self.fiber.leave_for_good();
}

void wait_as(Thread::State state, const Where& where) {
  Thread& self = *cluster.running;
  self.where = where;
  self.state = state;
  self.fiber.leave();
}

// Lets `count` threads from `begin` on, a block's or the cluster's, go on when all of them wait at one such barrier.
bool release(Thread::State barrier, int begin, int count) {
  const Thread& first = *cluster.threads[begin];
  for (int i = begin; i < begin + count; ++i)
    if (cluster.threads[i]->state != barrier || !same_place(cluster.threads[i]->where, first.where)) return false;
  for (int i = begin; i < begin + count; ++i) cluster.threads[i]->state = Thread::ready;
  return true;
}

// Whether anybody at a barrier may go on.
bool release_barriers() {
  bool any = release(Thread::at_cluster_barrier, 0, cluster.num_threads());
  for (int rank = 0; rank < cluster.num_blocks; ++rank)
    any |= release(Thread::at_barrier, rank * cluster.block_threads, cluster.block_threads);
  return any;
}

// Lets the lanes of each mask go on that all wait in one exchange, in the warp that begins at thread `begin`.
bool release_exchanges(int begin, int num_lanes) {
  bool any = false;
  for (int i = 0; i < num_lanes; ++i) {
    const Thread& leader = *cluster.threads[begin + i];
    if (leader.state != Thread::in_exchange) continue;
    const auto takes_part = [&](int lane) { return (leader.mask >> lane & 1) != 0; };
    bool complete = true;
    for (int lane = 0; lane < warp_size; ++lane) {
      if (!takes_part(lane)) continue;
      const Thread* const other = lane < num_lanes ? cluster.threads[begin + lane].get() : nullptr;
      complete =
          complete && other && other->state == Thread::in_exchange && other->mask == leader.mask && same_place(other->where, leader.where);
    }
    if (!complete) continue;
    for (int lane = 0; lane < num_lanes; ++lane)
      if (takes_part(lane)) cluster.threads[begin + lane]->state = Thread::ready;
    any = true;
  }
  return any;
}

// Runs each lane of a warp until it waits or ends, and again while an exchange lets some go on.
void run_warp(int begin, int num_lanes) {
  do {
    for (int i = 0; i < num_lanes; ++i) {
      Thread& thread = *cluster.threads[begin + (options.reversed ? num_lanes - 1 - i : i)];
      if (thread.state != Thread::ready) continue;
      cluster.running = &thread;
      blockIdx = thread.block;
      thread.fiber.enter();
      if (cluster.error) std::rethrow_exception(std::exchange(cluster.error, nullptr));
    }
  } while (release_exchanges(begin, num_lanes));
}

[[noreturn]] void report_deadlock() {
  std::string text = "emulation: no thread can go on in block (" + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + ")";
  int told = 0;
  for (int i = 0; i < cluster.num_threads() && told < 4; ++i) {
    const Thread& thread = *cluster.threads[i];
    if (i > 0 && thread.state == cluster.threads[i - 1]->state && same_place(thread.where, cluster.threads[i - 1]->where)) continue;
    ++told;
    text += "; thread " + std::to_string(i) + (thread.state == Thread::done ? " has ended" : " waits at " + place(thread.where));
  }
  MST_FAIL(text);
}

// Runs the blocks from `first` on, numbered along the grid.
void run_cluster(unsigned first) {
  const int block_threads = cluster.block_threads;
  for (int i = 0; i < cluster.num_threads(); ++i) {
    Thread& thread = *cluster.threads[i];
    thread.linear = i % block_threads;
    thread.rank = i / block_threads;
    const unsigned linear = static_cast<unsigned>(thread.linear), block = first + static_cast<unsigned>(thread.rank);
    thread.index = dim3(linear % blockDim.x, linear / blockDim.x % blockDim.y, linear / blockDim.x / blockDim.y);
    thread.block = dim3(block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y);
    thread.state = Thread::ready;
    thread.num_exchanges = 0;
    thread.copies.clear();
    thread.num_groups = 0;
    thread.fiber.prepare(body, &thread);
  }
  const int block_warps = (block_threads + warp_size - 1) / warp_size, num_warps = cluster.num_blocks * block_warps;
  for (;;) {
    for (int i = 0; i < num_warps; ++i) {
      const int warp = options.reversed ? num_warps - 1 - i : i, begin = warp % block_warps * warp_size;
      run_warp(warp / block_warps * block_threads + begin, std::min(warp_size, block_threads - begin));
    }
    bool all_done = true;
    for (int i = 0; i < cluster.num_threads(); ++i) all_done = all_done && cluster.threads[i]->state == Thread::done;
    if (all_done) return;
    if (!release_barriers()) report_deadlock();
  }
}

}  // namespace

const dim3& thread_index() {
  return cluster.running->index;
}
void* dynamic_shared() {
  return cluster.shared[cluster.running->rank].data();
}
int lane() {
  return cluster.running->linear % warp_size;
}

void synchronize_block(const Where& where) {
  wait_as(Thread::at_barrier, where);
}
void synchronize_cluster(const Where& where) {
  wait_as(Thread::at_cluster_barrier, where);
}

unsigned cluster_rank() {
  return static_cast<unsigned>(cluster.running->rank);
}
unsigned cluster_size() {
  return static_cast<unsigned>(cluster.num_blocks);
}
void* in_block(const void* mine, unsigned rank) {
  return cluster.shared.at(rank).data() + (static_cast<const unsigned char*>(mine) - static_cast<unsigned char*>(dynamic_shared()));
}

const void* exchange(unsigned mask, const void* mine, std::size_t bytes, int source, const Where& where) {
  Thread& self = *cluster.running;
  MST_CHECK(bytes <= largest_value, "emulation: ", bytes, " bytes in a warp function");
  MST_CHECK(mask >> lane() & 1 && source >= 0 && source < warp_size && mask >> source & 1, "emulation: the mask at ", place(where),
            " leaves out lane ", lane(), " or its source ", source);
  const unsigned turn = self.num_exchanges++ % 2;
  std::memcpy(self.given[turn].data(), mine, bytes);
  self.mask = mask;
  wait_as(Thread::in_exchange, where);
  return cluster.neighbour(self.linear / warp_size * warp_size + source).given[turn].data();
}

const void* given_by(int lane) {
  const Thread& self = *cluster.running;
  return cluster.neighbour(self.linear / warp_size * warp_size + lane).given[(self.num_exchanges - 1) % 2].data();
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
  Thread& self = *cluster.running;
  self.copies.push_back({to, from, static_cast<std::size_t>(bytes), self.num_groups});
}

void commit_copies() {
  ++cluster.running->num_groups;
}

void wait_for_copies(int pending) {
  Thread& self = *cluster.running;
  std::erase_if(self.copies, [&](const Thread::Copy& copy) {
    if (copy.group + pending >= self.num_groups) return false;
    std::memset(copy.to, 0, 16);
    std::memcpy(copy.to, copy.from, copy.bytes);
    return true;
  });
}

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, unsigned cluster_size, const std::function<void()>& kernel) {
  MST_CHECK(grid.x > 0 && grid.x <= 0x7fffffff && grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535 && block.x > 0 &&
                block.y > 0 && block.z > 0 && block.z <= 64 && block.x * block.y * block.z <= 1024 && shared_bytes <= options.shared_bytes,
            "emulation: not every GPU takes a grid of (", grid.x, ",", grid.y, ",", grid.z, "), blocks of (", block.x, ",", block.y, ",",
            block.z, ") and ", shared_bytes, " bytes of shared memory");
  MST_CHECK(cluster_size > 0 && cluster_size <= options.cluster_size && grid.x % cluster_size == 0, "emulation: no GPU takes clusters of ",
            cluster_size, " blocks in a grid of ", grid.x, " where a cluster has at most ", options.cluster_size);
  gridDim = grid;
  blockDim = block;
  cluster.kernel = &kernel;
  cluster.num_blocks = static_cast<int>(cluster_size);
  cluster.block_threads = static_cast<int>(block.x * block.y * block.z);
  while (static_cast<int>(cluster.threads.size()) < cluster.num_threads()) cluster.threads.push_back(std::make_unique<Thread>());
  const unsigned num_clusters = grid.x * grid.y * grid.z / cluster_size;
  for (unsigned i = 0; i < num_clusters; ++i) {
    cluster.shared.assign(cluster_size, std::vector<unsigned char>(shared_bytes, 0xff));
    for (auto& shared : cluster.shared) shared.shrink_to_fit();  // so that AddressSanitizer sees its end
    run_cluster(cluster_size * (options.reversed ? num_clusters - 1 - i : i));
  }
}

}  // namespace emulation
