// Stands in for every .cu file in a build without nvcc: defines each CUDA kernel that the contracts declare as an error.
#include "../kernel.h"

#undef KERNEL
#define KERNEL(name, ...)                                                                                  \
  namespace cuda {                                                                                         \
  void name(__VA_ARGS__) {                                                                                 \
    MST_FAIL(#name, ": this build has no CUDA. Build with nvcc on the PATH (npm run build), or use device 'cpu'"); \
  }                                                                                                        \
  }                                                                                                        \
  static_assert(true)

#include "../ops/all.h"
