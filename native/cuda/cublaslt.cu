// Loading cuBLASLt; see cublaslt.h.
#include "cublaslt.h"

#include <mutex>

#include "library.h"

namespace mst::cuda {
namespace {

std::mutex mutex;  // of what follows
CublasLtSearch result;
CublasLt functions;
bool is_loaded = false;

std::string find_functions(void* library) {
  CublasLt& f = functions;
  return Functions(library)
      .find("cublasLtGetVersion", f.version)
      .find("cublasLtGetStatusString", f.status_text)
      .find("cublasLtCreate", f.create)
      .find("cublasLtMatmulDescCreate", f.matmul_desc_create)
      .find("cublasLtMatmulDescSetAttribute", f.matmul_desc_set)
      .find("cublasLtMatmulDescDestroy", f.matmul_desc_destroy)
      .find("cublasLtMatrixLayoutCreate", f.layout_create)
      .find("cublasLtMatrixLayoutDestroy", f.layout_destroy)
      .find("cublasLtMatmulPreferenceCreate", f.preference_create)
      .find("cublasLtMatmulPreferenceSetAttribute", f.preference_set)
      .find("cublasLtMatmulPreferenceDestroy", f.preference_destroy)
      .find("cublasLtMatmulAlgoGetHeuristic", f.heuristic)
      .find("cublasLtMatmul", f.matmul)
      .missing();
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
  const std::string what = found.refused.empty() ? "was not found" : "cannot be used" + refused_text(found);
  result.problem = "cuBLASLt 13 or 12 " + what + ". Install the CUDA toolkit, or `pip install nvidia-cublas`. Tried:" + tried;
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
