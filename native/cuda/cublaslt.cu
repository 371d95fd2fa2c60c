// Loading cuBLASLt; see cublaslt.h.
#include "cublaslt.h"

#include <dlfcn.h>

#include <mutex>

#include "library.h"

namespace mst::cuda {
namespace {

std::mutex mutex;  // of what follows
CublasLtSearch result;
CublasLt functions;
bool is_loaded = false;

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool find_functions(void* library) {
  CublasLt& f = functions;
  return find(library, "cublasLtGetVersion", f.version) && find(library, "cublasLtGetStatusString", f.status_text) &&
         find(library, "cublasLtCreate", f.create) && find(library, "cublasLtMatmulDescCreate", f.matmul_desc_create) &&
         find(library, "cublasLtMatmulDescSetAttribute", f.matmul_desc_set) &&
         find(library, "cublasLtMatmulDescDestroy", f.matmul_desc_destroy) &&
         find(library, "cublasLtMatrixLayoutCreate", f.layout_create) && find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
         find(library, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
         find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
         find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
         find(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristic) && find(library, "cublasLtMatmul", f.matmul);
}

// mutex is held.
void search() {
  if (is_loaded) return;
  LibrarySearch found = open_library({"libcublasLt.so.13", "libcublasLt.so.12"}, {"cu13", "cublas"}, find_functions);
  result = {};
  result.tried = std::move(found.tried);
  if (!found.path.empty()) {
    is_loaded = true;
    result.path = found.path;
    result.version = functions.version();
    return;
  }
  std::string tried;
  for (const std::string& path : result.tried) tried += "\n  " + path;
  result.problem = "cuBLASLt 13 or 12 was not found. Install the CUDA toolkit, or `pip install nvidia-cublas`. Tried:" + tried;
}

}  // namespace

const CublasLt& cublaslt() {
  const std::lock_guard lock(mutex);
  search();
  MST_CHECK(is_loaded, "cuda: ", result.problem);
  return functions;
}

CublasLtSearch find_cublaslt() {
  const std::lock_guard lock(mutex);
  search();
  return result;
}

}  // namespace mst::cuda
