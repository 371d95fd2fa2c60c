// Loading cuDNN; see cudnn.h.
#include "cudnn.h"

#include "cublaslt.h"

namespace mst::cuda {
namespace {

std::string find_functions(void* library, Cudnn& f) {
  return Functions(library)
      .find("cudnnGetVersion", f.version)
      .find("cudnnGetCudartVersion", f.cudart_version)
      .find("cudnnGetLastErrorString", f.last_error)
      .find("cudnnCreate", f.create)
      .find("cudnnDestroy", f.destroy)
      .find("cudnnSetStream", f.set_stream)
      .find("cudnnBackendCreateDescriptor", f.create_descriptor)
      .find("cudnnBackendDestroyDescriptor", f.destroy_descriptor)
      .find("cudnnBackendSetAttribute", f.set_attribute)
      .find("cudnnBackendGetAttribute", f.get_attribute)
      .find("cudnnBackendFinalize", f.finalize)
      .find("cudnnBackendExecute", f.execute)
      .missing();
}

// Versions whose attention is known to be wrong; cudnn-frontend refuses them too.
bool is_refused(std::size_t version) {
  return version == 91000 || version == 91001;
}

std::string problem_of(const Cudnn& cudnn) {
  const std::size_t number = cudnn.version();
  const std::string name = message_of("cuDNN ", number / 10000, '.', number / 100 % 100, '.', number % 100);
  if (is_refused(number)) return name + " computes attention wrongly";
  const std::size_t built_for = cudnn.cudart_version() / 1000, cublaslt_major = find_cublaslt().version / 10000;
  if (built_for != cublaslt_major)
    return message_of(name, " is built for CUDA ", built_for, ", but cuBLASLt is from CUDA ", cublaslt_major);
  return "";
}

Library<Cudnn>& library() {
  static Library<Cudnn> cudnn({"cuDNN 9", "Install it, or `pip install nvidia-cudnn-cu13`", {"libcudnn.so.9"}, {"cudnn"}}, find_functions,
                              problem_of);
  return cudnn;
}

}  // namespace

LibrarySearch find_cudnn() {
  if (find_cublaslt().problem.empty()) return library().search();
  LibrarySearch not_searched;
  not_searched.problem = "cuDNN needs cuBLASLt, which was not found";
  return not_searched;
}

const Cudnn& cudnn() {
  return library().table();
}

void check_cudnn(int status, const char* call) {
  if (status == 0) return;
  char text[512] = "";
  cudnn().last_error(text, sizeof text);
  MST_FAIL("cudnn: ", call, ": status ", status, ": ", text);
}

namespace dnn {

Descriptor::Descriptor(Kind kind) {
  void* descriptor = nullptr;
  check_cudnn(cudnn().create_descriptor(static_cast<int>(kind), &descriptor), "cudnnBackendCreateDescriptor");
  pointer_.reset(descriptor);
}

}  // namespace dnn

}  // namespace mst::cuda
