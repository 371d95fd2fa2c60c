// How the threads of a cross-entropy read rows of logits. for_each(body) calls body(v, vector) for each of the thread's vectors, where v is
// its first column. for_each_then_load(body, next) does the same for a body that overwrites the logits in memory, and prefetches the row at
// `next`, if any, while the body runs. load(next) only loads. is_mine(v): whether the thread has the logit of column v.
#pragma once

#include "../cuda/common/cluster.h"
#include "../cuda/common/vector_load.h"

namespace mst::cuda {

// A row in registers. Each block of the cluster has a part of nearly equal length.
template <int width, class T>
class RegisterRow {
 public:
  static constexpr int threads = 512, blocks_of_multiprocessor = 2, held = 8;  // held: vectors of a thread
  static constexpr int max_cols = threads * held * width;                      // of a block

  __device__ RegisterRow(const T* row, int V) {
    const int whole = V / width, blocks = cluster_size(), rank = cluster_rank();
    const int of_block = (whole + blocks - 1) / blocks, thread = static_cast<int>(threadIdx.x);
    first_ = (of_block * rank + thread) * width;
    const int end = of_block * (rank + 1);
    end_ = (end < whole ? end : whole) * width;
    left_over_ = rank + 1 == blocks && whole * width + thread < V ? whole * width + thread : -1;
    load(row);
  }

  __device__ void load(const T* row) {
    if (!row) return;
#pragma unroll
    for (int j = 0; j < held; ++j)
      if (column(j) < end_) vectors_[j] = load_vector<width>(row + column(j));
    if (left_over_ >= 0) last_ = load_vector<1>(row + left_over_);
  }

  template <class Body>
  __device__ void for_each(const Body& body) const {
#pragma unroll
    for (int j = 0; j < held; ++j) {
      if (column(j) >= end_) break;
      body(column(j), as_new(vectors_[j]));
    }
    if (left_over_ >= 0) body(left_over_, last_);
  }

  template <class Body>
  __device__ void for_each_then_load(const Body& body, const T* next) {
#pragma unroll
    for (int j = 0; j < held; ++j) {
      if (column(j) >= end_) break;
      body(column(j), as_new(vectors_[j]));
      if (next) vectors_[j] = load_vector<width>(next + column(j));
    }
    if (left_over_ < 0) return;
    body(left_over_, last_);
    if (next) last_ = load_vector<1>(next + left_over_);
  }

  __device__ bool is_mine(int v) const {
    return v == left_over_ || (v >= first_ && v < end_ && (v - first_) % (threads * width) < width);
  }

 private:
  __device__ int column(int j) const {
    return first_ + j * threads * width;
  }

  Vector<T, width> vectors_[held] = {};
  int first_, end_, left_over_;  // columns: the thread's first; the block's end; the thread's one after the whole vectors, or -1
  Vector<T, 1> last_ = {};
};

// A row in memory. A block takes all registers of a multiprocessor, so that L2 holds all rows that are being read.
template <int width, class T>
class MemoryRow {
 public:
  static constexpr int threads = 1024, blocks_of_multiprocessor = 1;

  __device__ MemoryRow(const T* row, int V) : row_(row), V_(V) {}

  __device__ void load(const T* row) {
    row_ = row;
  }

  template <class Body>
  __device__ void for_each(const Body& body) const {
    constexpr int batch = 4;
    for_each_of_row<width, batch>(row_, V_, body);
  }

  template <class Body>
  __device__ void for_each_then_load(const Body& body, const T* next) {
    for_each(body);
    load(next);
  }

  __device__ bool is_mine(int v) const {
    const int whole = V_ / width * width, thread = static_cast<int>(threadIdx.x);
    return v < whole ? v / width % threads == thread : v - whole == thread;
  }

 private:
  const T* row_;
  int V_;
};

}  // namespace mst::cuda
