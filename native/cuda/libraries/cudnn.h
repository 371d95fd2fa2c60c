// cuDNN's backend API, loaded from where the user has it. The declarations are our own: opaque descriptors, which the library makes, and
// numbers (checked against the headers of cuDNN 9.24; those used here have not changed since 9.0).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/check.h"
#include "library.h"

namespace mst::cuda {

// Functions return a status, 0 for success.
struct Cudnn {
  std::size_t (*version)();         // 91900 = 9.19.0
  std::size_t (*cudart_version)();  // the CUDA version that it was built for: 13000 = 13.0
  void (*last_error)(char* text, std::size_t bytes);
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*set_stream)(void* handle, cudaStream_t stream);
  int (*create_descriptor)(int type, void** descriptor);
  int (*destroy_descriptor)(void* descriptor);
  int (*set_attribute)(void* descriptor, int name, int type, std::int64_t count, const void* values);
  int (*get_attribute)(void* descriptor, int name, int type, std::int64_t max_count, std::int64_t* count, void* values);
  int (*finalize)(void* descriptor);
  int (*execute)(void* handle, void* plan, void* variant_pack);
};

// Never throws. cuDNN is opened only if cuBLASLt of the same CUDA major version is found: without it cuDNN aborts the process.
LibrarySearch find_cudnn();

// The functions. Call it only if find_cudnn() has no problem.
const Cudnn& cudnn();

// Throws an Error with cuDNN's message if a status is not 0.
void check_cudnn(int status, const char* call);

namespace dnn {

enum class Kind : int {  // of descriptors
  pointwise = 0,
  engine_config = 3,
  engine_heuristics = 4,
  execution_plan = 5,
  operation_pointwise = 13,
  operation_graph = 15,
  variant_pack = 16,
  tensor = 17,
  matmul = 18,
  operation_matmul = 19,
  reduction = 21,
  operation_reduction = 22,
  operation_reshape = 31,
};

enum class Type : int {  // of data
  f32 = 0,
  i32 = 4,
  bf16 = 9,
  boolean = 11,
};

enum class Pointwise : int {
  add = 0,
  multiply = 1,
  divide = 6,
  subtract = 9,
  exp = 13,
  log = 15,
  identity = 21,
  tanh = 101,
  tanh_backward = 201,
  greater = 302,
  greater_equal = 303,
  index = 501,
  select = 601,
};

enum class Reduction : int { add = 0, max = 3 };

// Names of attributes.
constexpr int pointwise_mode = 0, pointwise_precision = 1, pointwise_axis = 9;
constexpr int heuristics_mode = 200, heuristics_graph = 201, heuristics_results = 202;
constexpr int plan_handle = 400, plan_config = 401, plan_workspace = 402;
constexpr int op_pointwise_desc = 750, op_pointwise_x = 751, op_pointwise_b = 752, op_pointwise_y = 753, op_pointwise_dx = 756,
              op_pointwise_dy = 757, op_pointwise_t = 758;
constexpr int graph_handle = 800, graph_operations = 801;
constexpr int tensor_alignment = 900, tensor_type = 901, tensor_sizes = 902, tensor_strides = 903, tensor_id = 906, tensor_is_virtual = 907,
              tensor_is_by_value = 908;
constexpr int pack_ids = 1000, pack_pointers = 1001, pack_workspace = 1003;
constexpr int matmul_precision = 1500, op_matmul_a = 1520, op_matmul_b = 1521, op_matmul_c = 1522, op_matmul_desc = 1523;
constexpr int reduction_operator = 1600, reduction_precision = 1601, op_reduction_x = 1610, op_reduction_y = 1611, op_reduction_desc = 1612;
constexpr int op_reshape_x = 2200, op_reshape_y = 2201, op_reshape_mode = 2202;

constexpr int heuristics_mode_a = 3;

// Types of attributes.
constexpr int as_handle = 0, as_type = 1, as_boolean = 2, as_int64 = 3, as_pointer = 6, as_heuristics_mode = 8, as_pointwise_mode = 14,
              as_descriptor = 15, as_reduction = 18, as_reshape_mode = 31;

// A backend descriptor, destroyed with its owner.
class Descriptor {
 public:
  explicit Descriptor(Kind kind);

  void* get() const {
    return pointer_.get();
  }
  template <class Value>
  void set(int name, int type, const std::vector<Value>& values) {
    check_cudnn(cudnn().set_attribute(get(), name, type, static_cast<std::int64_t>(values.size()), values.data()),
                "cudnnBackendSetAttribute");
  }
  template <class Value>
  void set(int name, int type, Value value) {
    check_cudnn(cudnn().set_attribute(get(), name, type, 1, &value), "cudnnBackendSetAttribute");
  }
  void set(int name, const Descriptor& value) {
    set(name, as_descriptor, value.get());
  }
  void finalize() {
    check_cudnn(cudnn().finalize(get()), "cudnnBackendFinalize");
  }

 private:
  struct Destroy {
    void operator()(void* descriptor) const {
      cudnn().destroy_descriptor(descriptor);
    }
  };
  std::unique_ptr<void, Destroy> pointer_;
};

}  // namespace dnn

}  // namespace mst::cuda
