// A failed call of CUDA's runtime throws an Error with the call and CUDA's message.
#pragma once

#include <cuda_runtime.h>

#include "../../runtime/check.h"

#define CUDA_CHECK(call)                                                                           \
  do {                                                                                             \
    const cudaError_t cuda_status = (call);                                                        \
    MST_CHECK(cuda_status == cudaSuccess, "cuda: ", #call, ": ", cudaGetErrorString(cuda_status)); \
  } while (false)
