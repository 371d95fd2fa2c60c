// What kernels note of an id that is out of range, as words on the device: [0] what, [1] row, [2] id, [3] V.
#pragma once

#include <cstddef>

namespace mst::cuda {

constexpr std::size_t num_status_words = 4;

enum Status : long long { status_ok = 0, status_embedding_forward = 1, status_embedding_backward = 2, status_cross_entropy = 3 };

}  // namespace mst::cuda
