// What kernels record about an id that is out of range, in words on the device: [0] Status, [1] row, [2] id, [3] V.
#pragma once

#include <cstddef>

namespace mst::cuda {

constexpr std::size_t num_status_words = 4;

enum Status : long long { status_ok = 0, status_embedding_forward = 1, status_embedding_backward = 2, status_cross_entropy = 3 };

}  // namespace mst::cuda
