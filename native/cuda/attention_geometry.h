// What all attention kernels share: who sees whom, and where a head's rows lie.
#pragma once

#include "launch.h"

namespace mst::cuda {

struct Geometry {
  std::int64_t N, T, H, G, D, window;
  const std::int32_t* document_start;
  float scale, softcap;  // softcap 0: none

  // Query n sees keys [first_key(n), n]. Never decreases from one query of a sequence to the next.
  __device__ std::int64_t first_key(std::int64_t n) const {
    std::int64_t first = n / T * T;
    if (window > 0 && n - window + 1 > first) first = n - window + 1;
    if (document_start && document_start[n] > first) first = document_start[n];
    return first;
  }
  __device__ bool sees(std::int64_t query, std::int64_t key) const {
    return key <= query && key >= first_key(query);
  }
};

// Rows of one head: element (n, d).
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
