// What CUDA's attention kernels share: which keys a query sees, the scores' scale and soft-cap, and where the rows of a head are.
#pragma once

#include "../cuda/common/launch.h"
#include "attention_geometry.h"

namespace mst::cuda {

struct Geometry : AttentionGeometry {
  float scale, softcap;  // softcap 0: none
};

// The rows of all heads of a tensor (N,heads·D).
template <class T>
struct Heads {
  T* data;
  std::int64_t stride;

  __device__ T* row(std::int64_t n, std::int64_t head, std::int64_t D) const {
    return data + n * stride + head * D;
  }
};

template <class T>
Heads<T> heads(const Tensor& tensor) {
  return {tensor.as<T>(), tensor.row_stride};
}

}  // namespace mst::cuda
