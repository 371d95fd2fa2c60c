// Loading cuDNN; see cudnn.h.
#include "cudnn.h"

#include <algorithm>
#include <mutex>

#include "cublaslt.h"

namespace mst::cuda {
namespace {

std::mutex mutex;  // of what follows
CudnnSearch result;
Cudnn functions;
bool has_searched = false;

std::string find_functions(void* library) {
  Cudnn& f = functions;
  return Functions(library)
      .find("cudnnGetVersion", f.version)
      .find("cudnnGetCudartVersion", f.cudart_version)
      .find("cudnnGetLastErrorString", f.last_error)
      .find("cudnnCreate", f.create)
      .find("cudnnSetStream", f.set_stream)
      .find("cudnnBackendCreateDescriptor", f.create_descriptor)
      .find("cudnnBackendDestroyDescriptor", f.destroy_descriptor)
      .find("cudnnBackendSetAttribute", f.set_attribute)
      .find("cudnnBackendGetAttribute", f.get_attribute)
      .find("cudnnBackendFinalize", f.finalize)
      .find("cudnnBackendExecute", f.execute)
      .missing();
}

// Versions whose attention is known to be wrong (cudnn-frontend refuses them too).
bool is_refused(std::size_t version) {
  return version == 91000 || version == 91001;
}

std::string problem_of(const CudnnSearch& search) {
  if (search.opened.path.empty()) {
    const std::string what = search.opened.refused.empty() ? "was not found" : "cannot be used" + refused_text(search.opened);
    return "cuDNN 9 " + what + ". Install it, or `pip install nvidia-cudnn-cu13`";
  }
  const auto version = [](std::size_t number) { return message_of(number / 10000, '.', number / 100 % 100, '.', number % 100); };
  if (is_refused(search.version)) return message_of("cuDNN ", version(search.version), " computes attention wrongly");
  const std::size_t built_for = functions.cudart_version() / 1000, cublaslt_major = find_cublaslt().version / 10000;
  if (built_for != cublaslt_major)
    return message_of("cuDNN ", version(search.version), " is built for CUDA ", built_for, ", cuBLASLt is of CUDA ", cublaslt_major);
  return "";
}

}  // namespace

CudnnSearch find_cudnn() {
  const std::string cublaslt_problem = find_cublaslt().problem;
  const std::lock_guard lock(mutex);
  if (has_searched) return result;
  if (!cublaslt_problem.empty()) return {{}, 0, "cuDNN needs cuBLASLt, which is not there"};
  has_searched = true;
  result.opened = open_library({"libcudnn.so.9"}, {"cudnn"}, find_functions);
  if (!result.opened.path.empty()) result.version = functions.version();
  result.problem = problem_of(result);
  return result;
}

const Cudnn& cudnn() {
  return functions;
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
