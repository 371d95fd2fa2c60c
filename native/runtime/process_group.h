// Processes, each with one device, that compute one step together: collectives over their tensors.
#pragma once

#include <string>
#include <vector>

#include "tensor.h"

namespace mst {

// One process of a group of `size`.
struct Rank {
  int rank, size;
  std::string host;        // an address of this machine that the other ranks reach
  double timeout_seconds;  // most that a collective may take
};

class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  // Bytes that every other rank needs to connect.
  virtual std::string address() const = 0;
  // Returns when every rank has called it. addresses: of all ranks, by rank.
  virtual void connect(const std::vector<std::string>& addresses) = 0;
  // x without gaps, f32, f64 or bf16 := the sum of all ranks' x, the same bits on every rank. Every rank calls it in the same order, with
  // as many elements of the same dtype.
  virtual void all_reduce(const Tensor& x) = 0;
  // From any thread: a collective that runs and all that come fail.
  virtual void abort() = 0;

 protected:
  ProcessGroup() = default;
};

}  // namespace mst
