// cuDNN's attention on one device: the library's handle, a plan for each kind of call, and the results of self-tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "../../runtime/context.h"
#include "../stream.h"
#include "cudnn_attention.h"
#include "cudnn_attention_graph.h"

namespace mst::cuda {

// The calls of attention that one self-test stands for.
struct CudnnAttentionTest {
  bool is_backward;
  std::int64_t D, heads_per_group;
  bool has_window, has_softcap;

  auto tie() const {
    return std::tie(is_backward, D, heads_per_group, has_window, has_softcap);
  }
  friend bool operator<(const CudnnAttentionTest& x, const CudnnAttentionTest& y) {
    return x.tie() < y.tie();
  }
};

// The memory of one backward launch over n key/value heads: dq in f32, delta, and the plan's workspace. The plan needs dk and dv of every
// query head if several share a key/value head.
struct CudnnBackwardMemory {
  std::size_t dq_sum, delta, plan;

  CudnnBackwardMemory(std::int64_t B, std::int64_t T, std::int64_t D, std::int64_t heads_per_group, std::int64_t n);
  std::size_t total() const {
    return dq_sum + delta + plan;
  }
};

class CudnnAttention {
 public:
  // cuDNN's handle is made at the first run.
  explicit CudnnAttention(const Stream& stream) : stream_(stream) {}
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  // Both return false and do nothing if cuDNN has no plan that fits the workspace.
  bool forward(const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
               const AttentionOptions& options);
  bool backward(const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

  // Whether cuDNN agrees with our kernels on a small problem of this kind; tested at the first call. See cudnn_attention_selftest.cu.
  bool passes(Context& context, const CudnnAttentionTest& test);

 private:
  void* handle();
  dnn::Plan* find_plan(const CudnnAttentionKind& kind);  // null if cuDNN has no engine

  const Stream& stream_;
  void* handle_ = nullptr;
  std::map<CudnnAttentionKind, std::unique_ptr<dnn::Plan>> plans_;
  std::map<CudnnAttentionTest, bool> test_results_;
};

}  // namespace mst::cuda
