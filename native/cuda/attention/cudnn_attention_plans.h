// cuDNN's attention on one device: its handle, a plan for each kind, and which kinds have passed the self-test.
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

// What one self-test stands for.
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

// The memory of one backward launch over n key/value groups: dq in f32, delta, and what the plan asks for, which is dk and dv of every
// query head where several share a group.
struct CudnnBackwardMemory {
  std::size_t dq_sum, delta, plan;

  CudnnBackwardMemory(std::int64_t B, std::int64_t T, std::int64_t D, std::int64_t heads_per_group, std::int64_t n);
  std::size_t total() const {
    return dq_sum + delta + plan;
  }
};

class CudnnAttention {
 public:
  // cuDNN is asked for nothing before the first run.
  explicit CudnnAttention(const Stream& stream) : stream_(stream) {}
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  // Both return false, having done nothing, where cuDNN has no plan that fits the workspace.
  bool forward(const AttentionInputs& inputs, const Tensor& out, const Tensor& lse, const Workspace& workspace,
               const AttentionOptions& options);
  bool backward(const Tensor& dout, const AttentionInputs& inputs, const Tensor& out, const Tensor& lse,
                const AttentionGradients& gradients, const Workspace& workspace, const AttentionOptions& options);

  // Whether cuDNN agrees with our kernels on a small problem of this kind, found at the first use; cudnn_attention_selftest.cu.
  bool passes(Context& context, const CudnnAttentionTest& test);

 private:
  void* handle();
  dnn::Plan* find_plan(const CudnnAttentionKind& kind);  // null where cuDNN has no engine

  const Stream& stream_;
  void* handle_ = nullptr;
  std::map<CudnnAttentionKind, std::unique_ptr<dnn::Plan>> plans_;
  std::map<CudnnAttentionTest, bool> test_results_;
};

}  // namespace mst::cuda
