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

  // Number of ranks.
  int size() const {
    return size_;
  }
  // Bytes that every other rank needs to connect.
  virtual std::string address() const = 0;
  // Returns when every rank has called it. addresses: of all ranks, by rank.
  virtual void connect(const std::vector<std::string>& addresses) = 0;
  // x without gaps, f32, f64 or bf16 := the sum of all ranks' x, the same bits on every rank. Every rank calls it in the same order, with
  // as many elements of the same dtype.
  virtual void all_reduce(const Tensor& x) = 0;
  // The same, but only rank r's part of x, elements [r part, min((r + 1) part, n)), becomes the sum; the others are undefined. A part may
  // be shorter than `part`, or empty.
  virtual void reduce_scatter(const Tensor& x, std::int64_t part) = 0;
  // x := each rank's part of it, on every rank.
  virtual void all_gather(const Tensor& x, std::int64_t part) = 0;
  // Rows [i·M, (i + 1)·M) of y := rows [r·M, (r + 1)·M) of x on the i-th of ranks [first, first + size), of which this is the r-th. x and y
  // are without gaps, of one shape and dtype, and do not overlap. All of these ranks call it in the same order; others need not.
  virtual void all_to_all(const Tensor& x, const Tensor& y, int first, int size) = 0;
  // From any thread: a collective that runs and all that come fail.
  virtual void abort() = 0;

 protected:
  explicit ProcessGroup(int size) : size_(size) {}

 private:
  const int size_;
};

}  // namespace mst
