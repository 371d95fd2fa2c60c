// A graph of cuDNN operations on 4-dimensional tensors, and the plan that runs it. cuDNN recognises known patterns, so the order of
// operations and the layouts of temporaries decide whether it finds a fast kernel.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "cudnn.h"

namespace mst::cuda::dnn {

using Sizes = std::array<std::int64_t, 4>;

inline Sizes packed_strides(const Sizes& sizes) {
  return {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1};
}

// A tensor of a graph. Real tensors get their memory at each run, by id; temporaries are never in memory.
struct Value {
  void* descriptor;
  Sizes sizes;
};

// A finished graph, which can be run any number of times.
struct Plan {
  std::vector<Descriptor> kept;  // descriptors that the plan refers to
  void* plan;
  std::size_t workspace_bytes;
  std::deque<std::pair<std::int64_t, float>> scalars;

  // pointers: (id, address) of every real tensor.
  void run(void* handle, const std::vector<std::pair<std::int64_t, const void*>>& pointers, void* workspace);
};

class Graph {
 public:
  Value real(std::int64_t id, const Sizes& sizes, const Sizes& strides, Type type);  // id below first_own_id
  Value temporary(const Sizes& sizes, Type type = Type::f32);
  Value temporary(const Sizes& sizes, const Sizes& strides, Type type);
  Value scalar(float value);

  // Each adds one operation and returns its result: `to` if it has one, otherwise a temporary.
  Value matmul(const Value& a, const Value& b, const Value& to);
  Value pointwise(Pointwise mode, const Value& x, const Value& to);
  Value pointwise(Pointwise mode, const Value& x, const Value& b, const Value& to, Type precision = Type::f32);
  Value tanh_backward(const Value& dy, const Value& x);
  Value select(const Value& condition, const Value& where_true, const Value& where_false);
  Value index(const Value& like, std::int64_t axis);
  Value reduce(Reduction reduction, const Value& x, const Value& to);
  Value reshape(const Value& x, const Value& to);

  Plan build(void* handle) &&;

  static constexpr std::int64_t first_own_id = 100;

 private:
  Descriptor& keep(Kind kind);
  void add(Descriptor& operation);
  Value make(std::int64_t id, const Sizes& sizes, const Sizes& strides, Type type, bool is_virtual, bool is_by_value);
  Descriptor& pointwise_desc(Pointwise mode, Type precision, std::int64_t axis = -1);

  std::deque<Descriptor> kept_;
  std::vector<void*> operations_;
  std::deque<std::pair<std::int64_t, float>> scalars_;
  std::int64_t next_id_ = first_own_id;
};

}  // namespace mst::cuda::dnn
