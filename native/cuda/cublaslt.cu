// Finding and loading cuBLASLt; see cublaslt.h.
#include "cublaslt.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <mutex>

namespace mst::cuda {
namespace {

constexpr const char* sonames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

std::mutex mutex;  // of what follows
std::vector<std::string> first_directories;
CublasLtSearch result;
CublasLt functions;
bool is_loaded = false;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

// Directories where Python wheels, conda, toolkits and Ollama put the library. May hold wildcards.
std::vector<std::string> places() {
  std::vector<std::string> found = first_directories;
  std::vector<std::string> site_packages;
  for (const std::string& root :
       {environment("VIRTUAL_ENV"), environment("HOME") + "/.local", std::string("/usr/local"), std::string("/usr")})
    if (!root.empty())
      for (const char* folder : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages", "/lib/python3/dist-packages"})
        site_packages.push_back(root + folder);
  for (const std::string& packages : site_packages) {
    found.push_back(packages + "/nvidia/cu13/lib");
    found.push_back(packages + "/nvidia/cublas/lib");
  }
  if (const std::string conda = environment("CONDA_PREFIX"); !conda.empty()) {
    found.push_back(conda + "/lib");
    found.push_back(conda + "/targets/x86_64-linux/lib");
  }
  for (const char* variable : {"CUDA_PATH", "CUDA_HOME"})
    if (const std::string root = environment(variable); !root.empty()) {
      found.push_back(root + "/lib64");
      found.push_back(root + "/targets/x86_64-linux/lib");
    }
  for (const char* fixed : {"/usr/local/cuda/lib64", "/usr/local/cuda-13*/lib64", "/usr/local/cuda-12*/lib64", "/usr/lib/x86_64-linux-gnu",
                            "/opt/cuda/lib64", "/usr/local/lib/ollama", "/usr/local/lib/ollama/cuda_v1*", "/usr/lib/ollama/cuda_v1*"})
    found.push_back(fixed);
  return found;
}

std::vector<std::string> expand(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t matches{};
  if (glob(pattern.c_str(), 0, nullptr, &matches) == 0)
    for (std::size_t i = 0; i < matches.gl_pathc; ++i) paths.emplace_back(matches.gl_pathv[i]);
  globfree(&matches);
  return paths;
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool load(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: CUDA libraries cannot be unloaded
  if (!library) return false;
  CublasLt& f = functions;
  const bool complete = find(library, "cublasLtGetVersion", f.version) && find(library, "cublasLtGetStatusString", f.status_text) &&
                        find(library, "cublasLtCreate", f.create) && find(library, "cublasLtMatmulDescCreate", f.matmul_desc_create) &&
                        find(library, "cublasLtMatmulDescSetAttribute", f.matmul_desc_set) &&
                        find(library, "cublasLtMatmulDescDestroy", f.matmul_desc_destroy) &&
                        find(library, "cublasLtMatrixLayoutCreate", f.layout_create) &&
                        find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
                        find(library, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
                        find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
                        find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
                        find(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristic) && find(library, "cublasLtMatmul", f.matmul);
  if (!complete) return false;
  Dl_info info{};
  result.path = dladdr(reinterpret_cast<void*>(f.version), &info) && info.dli_fname ? info.dli_fname : path;
  result.version = f.version();
  return is_loaded = true;
}

bool attempt(const std::string& path) {
  result.tried.push_back(path);
  return load(path);
}

// mutex is held.
void search() {
  if (is_loaded) return;
  result = {};
  for (const std::string& directory : first_directories)
    for (const char* soname : sonames)
      if (attempt(directory + "/" + soname)) return;
  for (const char* soname : sonames)
    if (attempt(soname)) return;
  for (const std::string& directory : places())
    for (const char* soname : sonames) {
      const std::string pattern = directory + "/" + soname;
      const std::vector<std::string> paths = expand(pattern);
      if (paths.empty()) result.tried.push_back(pattern);
      for (const std::string& path : paths)
        if (attempt(path)) return;
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

void set_cublaslt_directories(std::vector<std::string> directories) {
  const std::lock_guard lock(mutex);
  first_directories = std::move(directories);
}

}  // namespace mst::cuda
