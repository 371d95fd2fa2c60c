// Emulated devices have no cuDNN: attention runs by the kernels under test.
#include "cuda/cudnn_attention.h"

namespace mst::cuda {

bool cudnn_attention_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Workspace&,
                             const AttentionGeometry&) {
  return false;
}

bool cudnn_attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                              const Tensor&, const Tensor&, const Workspace&, const AttentionGeometry&) {
  return false;
}

}  // namespace mst::cuda
