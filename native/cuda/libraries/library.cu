// Finds and opens NVIDIA's libraries; see library.h.
#include "library.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>

#include <cstdlib>
#include <mutex>

#include "../../runtime/check.h"

namespace mst::cuda {
namespace {

std::mutex mutex;
std::vector<std::string> first_directories;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

// The directories to search; they may contain wildcards.
std::vector<std::string> places(const std::vector<std::string>& wheels) {
  std::vector<std::string> found;
  for (const std::string& root :
       {environment("VIRTUAL_ENV"), environment("HOME") + "/.local", std::string("/usr/local"), std::string("/usr")})
    if (!root.empty())
      for (const char* packages : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages", "/lib/python3/dist-packages"})
        for (const std::string& wheel : wheels) found.push_back(root + packages + "/nvidia/" + wheel + "/lib");
  if (const std::string conda = environment("CONDA_PREFIX"); !conda.empty()) {
    found.push_back(conda + "/lib");
    found.push_back(conda + "/targets/x86_64-linux/lib");
  }
  for (const char* variable : {"CUDNN_PATH", "CUDA_PATH", "CUDA_HOME"})
    if (const std::string root = environment(variable); !root.empty()) {
      found.push_back(root + "/lib");
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

// Whether dlopen's message says that the file itself is missing. If a library that it needs is missing, the message names that one.
bool is_absent(const std::string& name, const std::string& message) {
  return message.rfind(name + ": cannot open shared object file: No such file", 0) == 0;
}

}  // namespace

LibrarySearch open_library(const LibraryNames& names, const std::function<std::string(void*)>& accept) {
  const std::lock_guard lock(mutex);
  LibrarySearch search;
  std::string refused;  // "; path: why" for each file that exists but was not accepted
  const auto attempt = [&](const std::string& name) {
    search.tried.push_back(name);
    void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const std::string why = dlerror();
      if (!is_absent(name, why)) refused += "; " + why;  // the message names the file
      return false;
    }
    link_map* map = nullptr;
    const std::string path = dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map ? map->l_name : name;
    const std::string why = accept(library);
    if (why.empty())
      search.path = path;
    else
      refused += message_of("; ", path, ": ", why);
    return why.empty();
  };
  for (const std::string& directory : first_directories)
    for (const std::string& soname : names.sonames)
      if (attempt(directory + "/" + soname)) return search;
  for (const std::string& soname : names.sonames)
    if (attempt(soname)) return search;
  for (const std::string& directory : places(names.wheels))
    for (const std::string& soname : names.sonames) {
      const std::string pattern = directory + "/" + soname;
      const std::vector<std::string> paths = expand(pattern);
      if (paths.empty()) search.tried.push_back(pattern);
      for (const std::string& path : paths)
        if (attempt(path)) return search;
    }
  search.problem = message_of(names.name, refused.empty() ? " was not found" : " cannot be used", refused, ". ", names.remedy);
  return search;
}

void* Functions::symbol(const char* name) {
  void* const found = dlsym(library_, name);
  if (!found && missing_.empty()) missing_ = name;
  return found;
}

void set_library_directories(std::vector<std::string> directories) {
  const std::lock_guard lock(mutex);
  first_directories = std::move(directories);
}

}  // namespace mst::cuda
