// cuBLASLt or cuDNN that can be found and opened, and no more. Macros:
//   CUBLASLT   its version; of the functions only cublasLtMatmul may lack: WITHOUT_MATMUL
//   CUDNN      its version, and CUDART, the CUDA version that it is built for
#include <cstddef>

extern "C" {

#define FUNCTION(name) \
  int name() {         \
    return 1;          \
  }

#ifdef CUBLASLT
std::size_t cublasLtGetVersion() {
  return CUBLASLT;
}
const char* cublasLtGetStatusString(int) {
  return "a fake";
}
FUNCTION(cublasLtCreate)
FUNCTION(cublasLtDestroy)
FUNCTION(cublasLtMatmulDescCreate)
FUNCTION(cublasLtMatmulDescSetAttribute)
FUNCTION(cublasLtMatmulDescDestroy)
FUNCTION(cublasLtMatrixLayoutCreate)
FUNCTION(cublasLtMatrixLayoutDestroy)
FUNCTION(cublasLtMatmulPreferenceCreate)
FUNCTION(cublasLtMatmulPreferenceSetAttribute)
FUNCTION(cublasLtMatmulPreferenceDestroy)
FUNCTION(cublasLtMatmulAlgoGetHeuristic)
#ifndef WITHOUT_MATMUL
FUNCTION(cublasLtMatmul)
#endif
#endif

#ifdef CUDNN
std::size_t cudnnGetVersion() {
  return CUDNN;
}
std::size_t cudnnGetCudartVersion() {
  return CUDART;
}
FUNCTION(cudnnGetLastErrorString)
FUNCTION(cudnnCreate)
FUNCTION(cudnnDestroy)
FUNCTION(cudnnSetStream)
FUNCTION(cudnnBackendCreateDescriptor)
FUNCTION(cudnnBackendDestroyDescriptor)
FUNCTION(cudnnBackendSetAttribute)
FUNCTION(cudnnBackendGetAttribute)
FUNCTION(cudnnBackendFinalize)
FUNCTION(cudnnBackendExecute)
#endif
}
