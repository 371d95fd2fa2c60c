// The CPU as a device.
#pragma once

#include <memory>

#include "../runtime/context.h"
#include "memory.h"

namespace mst::cpu {

class Products;

class Context : public mst::Context {
 public:
  // num_threads: the number of threads that ops run on.
  explicit Context(int num_threads) : Context(Device{}, num_threads) {}
  ~Context() override;

  Memory& memory() override {
    return memory_;
  }
  // oneDNN's matrix products, each made once; see products.h.
  Products& products() {
    return *products_;
  }

  void attach_thread() override;
  void copy_in(void* to, const void* from, std::size_t bytes) override;
  void copy_out(void* to, const void* from, std::size_t bytes) override;
  void copy_within(void* to, const void* from, std::size_t bytes) override;
  void fill_bytes(void* to, int value, std::size_t bytes) override;
  void synchronize() override {}  // ops have run when their calls return

 protected:
  Context(const Device& device, int num_threads);

  std::unique_ptr<ProcessGroup> make_group(const Rank& rank) override;

 private:
  int num_threads_;
  Memory memory_;
  std::unique_ptr<Products> products_;
};

}  // namespace mst::cpu
