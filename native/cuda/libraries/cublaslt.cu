// Loading cuBLASLt; see cublaslt.h.
#include "cublaslt.h"

namespace mst::cuda {
namespace {

std::string find_functions(void* library, CublasLt& f) {
  return Functions(library)
      .find("cublasLtGetVersion", f.version)
      .find("cublasLtGetStatusString", f.status_text)
      .find("cublasLtCreate", f.create)
      .find("cublasLtDestroy", f.destroy)
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

Library<CublasLt>& library() {
  static Library<CublasLt> cublaslt({"cuBLASLt 13 or 12",
                                     "Install the CUDA toolkit, or `pip install nvidia-cublas`",
                                     {"libcublasLt.so.13", "libcublasLt.so.12"},
                                     {"cu13", "cublas"}},
                                    find_functions, [](const CublasLt&) { return std::string(); });
  return cublaslt;
}

}  // namespace

const CublasLt& cublaslt() {
  const LibrarySearch found = find_cublaslt();
  MST_CHECK(found.problem.empty(), "cuda: ", found.problem);
  return library().table();
}

LibrarySearch find_cublaslt() {
  LibrarySearch found = library().search();
  if (found.problem.empty()) return found;
  found.problem += ". Tried:";
  for (const std::string& path : found.tried) found.problem += "\n  " + path;
  return found;
}

}  // namespace mst::cuda
