// What kernels find on the command thread of a CUDA device.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

namespace mst::cuda {

#ifdef __CUDACC__
// The stream that the device's commands run on. Set when the command thread attaches itself to the device.
cudaStream_t current_stream();
#endif

// Device memory in which the kernels of the running command note the first id that is out of range; DeviceContext::take_notes reads it.
// [0] what: a Status; [1] row; [2] id; [3] V
long long* status_words();

enum Status : long long { status_ok = 0, status_embedding_forward = 1, status_embedding_backward = 2, status_cross_entropy = 3 };

}  // namespace mst::cuda
