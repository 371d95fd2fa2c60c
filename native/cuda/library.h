// Finding the NVIDIA libraries that nobody may ship, where their users have them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mst::cuda {

struct LibrarySearch {
  std::string path;  // empty: not found
  std::vector<std::string> tried;
};

// Opens the first library that `accept` takes, and never closes it: CUDA libraries cannot be unloaded. Looks in the directories of
// set_library_directories(), then asks the loader, then goes through Python wheels (site-packages/nvidia/<wheel>/lib), conda,
// toolkits and Ollama. accept gets what dlopen returned.
LibrarySearch open_library(const std::vector<std::string>& sonames, const std::vector<std::string>& wheels,
                           const std::function<bool(void*)>& accept);

// Searched before everything else, from the next search on.
void set_library_directories(std::vector<std::string> directories);

}  // namespace mst::cuda
