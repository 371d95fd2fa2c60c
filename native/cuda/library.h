// Finding the NVIDIA libraries that nobody may ship, where their users have them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mst::cuda {

struct LibrarySearch {
  std::string path;  // empty: not found
  std::vector<std::string> tried;
  std::vector<std::string> refused;  // "path: why", of files that are there
};

// Opens the first library that `accept` takes, and never closes it: CUDA libraries cannot be unloaded. Looks in the directories of
// set_library_directories(), then asks the loader, then goes through Python wheels (site-packages/nvidia/<wheel>/lib), conda,
// toolkits and Ollama. accept gets what dlopen returned, and says why it does not take it; empty: it does.
LibrarySearch open_library(const std::vector<std::string>& sonames, const std::vector<std::string>& wheels,
                           const std::function<std::string(void*)>& accept);

// The refused ones as the end of a sentence; empty where there are none.
std::string refused_text(const LibrarySearch& search);

// Finds the functions of a library one by one; missing() is the first that it lacks.
class Functions {
 public:
  explicit Functions(void* library) : library_(library) {}

  template <class Function>
  Functions& find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(symbol(name));
    return *this;
  }
  std::string missing() const {
    return missing_.empty() ? "" : "it has no " + missing_;
  }

 private:
  void* symbol(const char* name);

  void* library_;
  std::string missing_;
};

// Searched before everything else, from the next search on.
void set_library_directories(std::vector<std::string> directories);

}  // namespace mst::cuda
