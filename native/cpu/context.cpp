// See context.h.
#include "context.h"

#include <omp.h>

#include <cstring>

#include "../runtime/device.h"
#include "gloo_group.h"
#include "products.h"

namespace mst {
namespace cpu {

Context::Context(const Device& device, int num_threads)
    : mst::Context(device), num_threads_(num_threads), products_(std::make_unique<Products>()) {}

Context::~Context() = default;

// Sets the number of OpenMP threads of the calling thread, for our loops and oneDNN's.
void Context::attach_thread() {
  omp_set_num_threads(num_threads_);
}
void Context::copy_in(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void Context::copy_out(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void Context::copy_within(void* to, const void* from, std::size_t bytes) {
  std::memmove(to, from, bytes);
}
void Context::fill_bytes(void* to, int value, std::size_t bytes) {
  std::memset(to, value, bytes);
}

std::unique_ptr<ProcessGroup> Context::make_group(const Rank& rank) {
  return make_gloo_group(rank);
}

Context& context_of(mst::Context& context) {
  return static_cast<Context&>(context);
}

}  // namespace cpu

std::unique_ptr<Context> open_cpu(int num_threads) {
  return std::make_unique<cpu::Context>(num_threads);
}

}  // namespace mst
