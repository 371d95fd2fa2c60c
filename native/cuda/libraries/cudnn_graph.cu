// Graphs and plans of cuDNN; see cudnn_graph.h.
#include "cudnn_graph.h"

#include <iterator>

namespace mst::cuda::dnn {

Descriptor& Graph::keep(Kind kind) {
  return kept_.emplace_back(kind);
}

void Graph::add(Descriptor& operation) {
  operation.finalize();
  operations_.push_back(operation.get());
}

Value Graph::make(std::int64_t id, const Sizes& sizes, const Sizes& strides, Type type, bool is_virtual, bool is_by_value) {
  Descriptor& tensor = keep(Kind::tensor);
  tensor.set(tensor_id, as_int64, id);
  tensor.set(tensor_type, as_type, type);
  tensor.set(tensor_sizes, as_int64, std::vector<std::int64_t>(sizes.begin(), sizes.end()));
  tensor.set(tensor_strides, as_int64, std::vector<std::int64_t>(strides.begin(), strides.end()));
  tensor.set(tensor_alignment, as_int64, std::int64_t{is_by_value ? 4 : 16});
  tensor.set(tensor_is_virtual, as_boolean, is_virtual);
  tensor.set(tensor_is_by_value, as_boolean, is_by_value);
  tensor.finalize();
  return {tensor.get(), sizes};
}

Value Graph::real(std::int64_t id, const Sizes& sizes, const Sizes& strides, Type type) {
  return make(id, sizes, strides, type, false, false);
}
Value Graph::temporary(const Sizes& sizes, Type type) {
  return temporary(sizes, packed_strides(sizes), type);
}
Value Graph::temporary(const Sizes& sizes, const Sizes& strides, Type type) {
  return make(next_id_++, sizes, strides, type, true, false);
}
Value Graph::scalar(float value) {
  scalars_.emplace_back(next_id_, value);
  return make(next_id_++, {1, 1, 1, 1}, {1, 1, 1, 1}, Type::f32, false, true);
}

Value Graph::matmul(const Value& a, const Value& b, const Value& to) {
  Descriptor& desc = keep(Kind::matmul);
  desc.set(matmul_precision, as_type, Type::f32);
  desc.finalize();
  Descriptor& operation = keep(Kind::operation_matmul);
  operation.set(op_matmul_a, as_descriptor, a.descriptor);
  operation.set(op_matmul_b, as_descriptor, b.descriptor);
  operation.set(op_matmul_c, as_descriptor, to.descriptor);
  operation.set(op_matmul_desc, desc);
  add(operation);
  return to;
}

Descriptor& Graph::pointwise_desc(Pointwise mode, Type precision, std::int64_t axis) {
  Descriptor& desc = keep(Kind::pointwise);
  desc.set(pointwise_mode, as_pointwise_mode, mode);
  desc.set(pointwise_precision, as_type, precision);
  if (axis >= 0) desc.set(pointwise_axis, as_int64, axis);
  desc.finalize();
  return desc;
}

Value Graph::pointwise(Pointwise mode, const Value& x, const Value& to) {
  Descriptor& desc = pointwise_desc(mode, Type::f32);
  Descriptor& operation = keep(Kind::operation_pointwise);
  operation.set(op_pointwise_desc, desc);
  operation.set(op_pointwise_x, as_descriptor, x.descriptor);
  operation.set(op_pointwise_y, as_descriptor, to.descriptor);
  add(operation);
  return to;
}

Value Graph::pointwise(Pointwise mode, const Value& x, const Value& b, const Value& to, Type precision) {
  Descriptor& desc = pointwise_desc(mode, precision);
  Descriptor& operation = keep(Kind::operation_pointwise);
  operation.set(op_pointwise_desc, desc);
  operation.set(op_pointwise_x, as_descriptor, x.descriptor);
  operation.set(op_pointwise_b, as_descriptor, b.descriptor);
  operation.set(op_pointwise_y, as_descriptor, to.descriptor);
  add(operation);
  return to;
}

Value Graph::tanh_backward(const Value& dy, const Value& x) {
  const Value dx = temporary(x.sizes);
  Descriptor& desc = pointwise_desc(Pointwise::tanh_backward, Type::f32);
  Descriptor& operation = keep(Kind::operation_pointwise);
  operation.set(op_pointwise_desc, desc);
  operation.set(op_pointwise_dy, as_descriptor, dy.descriptor);
  operation.set(op_pointwise_x, as_descriptor, x.descriptor);
  operation.set(op_pointwise_dx, as_descriptor, dx.descriptor);
  add(operation);
  return dx;
}

Value Graph::select(const Value& condition, const Value& where_true, const Value& where_false) {
  const Value to = temporary(where_true.sizes);
  Descriptor& desc = pointwise_desc(Pointwise::select, Type::f32);
  Descriptor& operation = keep(Kind::operation_pointwise);
  operation.set(op_pointwise_desc, desc);
  operation.set(op_pointwise_x, as_descriptor, where_true.descriptor);
  operation.set(op_pointwise_b, as_descriptor, where_false.descriptor);
  operation.set(op_pointwise_t, as_descriptor, condition.descriptor);
  operation.set(op_pointwise_y, as_descriptor, to.descriptor);
  add(operation);
  return to;
}

Value Graph::index(const Value& like, std::int64_t axis) {
  const Value to = temporary(like.sizes, Type::i32);
  Descriptor& desc = pointwise_desc(Pointwise::index, Type::f32, axis);
  Descriptor& operation = keep(Kind::operation_pointwise);
  operation.set(op_pointwise_desc, desc);
  operation.set(op_pointwise_x, as_descriptor, like.descriptor);
  operation.set(op_pointwise_y, as_descriptor, to.descriptor);
  add(operation);
  return to;
}

Value Graph::reduce(Reduction reduction, const Value& x, const Value& to) {
  Descriptor& desc = keep(Kind::reduction);
  desc.set(reduction_operator, as_reduction, reduction);
  desc.set(reduction_precision, as_type, Type::f32);
  desc.finalize();
  Descriptor& operation = keep(Kind::operation_reduction);
  operation.set(op_reduction_x, as_descriptor, x.descriptor);
  operation.set(op_reduction_y, as_descriptor, to.descriptor);
  operation.set(op_reduction_desc, desc);
  add(operation);
  return to;
}

Value Graph::reshape(const Value& x, const Value& to) {
  constexpr std::size_t first_version_with_modes = 92200;
  constexpr int view = 0;
  Descriptor& operation = keep(Kind::operation_reshape);
  operation.set(op_reshape_x, as_descriptor, x.descriptor);
  if (cudnn().version() >= first_version_with_modes) operation.set(op_reshape_mode, as_reshape_mode, view);
  operation.set(op_reshape_y, as_descriptor, to.descriptor);
  add(operation);
  return to;
}

Plan Graph::build(void* handle) && {
  Descriptor& graph = keep(Kind::operation_graph);
  graph.set(graph_handle, as_handle, handle);
  graph.set(graph_operations, as_descriptor, operations_);
  graph.finalize();

  Descriptor& heuristics = keep(Kind::engine_heuristics);
  heuristics.set(heuristics_mode, as_heuristics_mode, heuristics_mode_a);
  heuristics.set(heuristics_graph, graph);
  heuristics.finalize();

  constexpr int max_configs = 8;
  std::vector<void*> found;
  for (int i = 0; i < max_configs; ++i) found.push_back(keep(Kind::engine_config).get());
  std::int64_t num_found = 0;
  check_cudnn(cudnn().get_attribute(heuristics.get(), heuristics_results, as_descriptor, max_configs, &num_found, found.data()),
              "cudnnBackendGetAttribute");
  std::string problems;
  for (std::int64_t i = 0; i < num_found; ++i) {
    try {
      Descriptor plan(Kind::execution_plan);
      plan.set(plan_handle, as_handle, handle);
      plan.set(plan_config, as_descriptor, found[i]);
      plan.finalize();
      std::int64_t workspace_bytes = 0, count = 0;
      check_cudnn(cudnn().get_attribute(plan.get(), plan_workspace, as_int64, 1, &count, &workspace_bytes), "cudnnBackendGetAttribute");
      void* const finished = plan.get();
      kept_.push_back(std::move(plan));
      return {{std::make_move_iterator(kept_.begin()), std::make_move_iterator(kept_.end())},
              finished,
              static_cast<std::size_t>(workspace_bytes),
              std::move(scalars_)};
    } catch (const Error& error) {
      problems += message_of("; ", error.what());
    }
  }
  MST_FAIL("cudnn: no engine for the graph, of ", num_found, " offered", problems);
}

void Plan::run(void* handle, const std::vector<std::pair<std::int64_t, const void*>>& pointers, void* workspace) {
  std::vector<std::int64_t> ids;
  std::vector<const void*> addresses;
  for (const auto& [id, address] : pointers) {
    ids.push_back(id);
    addresses.push_back(address);
  }
  for (const auto& [id, value] : scalars) {
    ids.push_back(id);
    addresses.push_back(&value);
  }
  Descriptor pack(Kind::variant_pack);
  pack.set(pack_ids, as_int64, ids);
  pack.set(pack_pointers, as_pointer, addresses);
  pack.set(pack_workspace, as_pointer, workspace);
  pack.finalize();
  check_cudnn(cudnn().execute(handle, plan, pack.get()), "cudnnBackendExecute");
}

}  // namespace mst::cuda::dnn
