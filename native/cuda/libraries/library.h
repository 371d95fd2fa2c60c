// Finds NVIDIA's libraries, which this package does not contain, where users have them.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace mst::cuda {

struct LibraryNames {
  std::string name;    // for messages
  std::string remedy;  // what helps if it is not found
  std::vector<std::string> sonames, wheels;
};

struct LibrarySearch {
  std::string path;  // empty: not found, or not accepted
  std::size_t version = 0;
  std::string problem;  // why it cannot be used; empty if it can
  std::vector<std::string> tried;
};

// Opens the first library that `accept` accepts, and never closes it: CUDA libraries cannot be unloaded. Searches the directories of
// set_library_directories(), then asks the loader, then searches Python wheels (site-packages/nvidia/<wheel>/lib), conda, toolkits and
// Ollama. accept gets what dlopen returned and says why it refuses it; empty: it accepts.
LibrarySearch open_library(const LibraryNames& names, const std::function<std::string(void*)>& accept);

// A library and the table of its functions, of which version() is one. It is searched for at every call until it is found, then kept. Any
// thread may call it.
template <class Table>
class Library {
 public:
  // find fills the table and says what the library lacks; problem_of says why a library that was found cannot be used. Empty: nothing.
  Library(LibraryNames names, std::string (*find)(void* library, Table& table), std::string (*problem_of)(const Table& table))
      : names_(std::move(names)), find_(find), problem_of_(problem_of) {}

  LibrarySearch search() {
    const std::lock_guard lock(mutex_);
    if (!found_.path.empty()) return found_;
    found_ = open_library(names_, [this](void* library) { return find_(library, table_); });
    if (found_.path.empty()) return found_;
    found_.version = table_.version();
    found_.problem = problem_of_(table_);
    return found_;
  }
  // Call it only if search() has no problem.
  const Table& table() const {
    return table_;
  }

 private:
  const LibraryNames names_;
  std::string (*const find_)(void* library, Table& table);
  std::string (*const problem_of_)(const Table& table);
  std::mutex mutex_;  // guards what follows
  LibrarySearch found_;
  Table table_{};
};

// Finds the functions of a library one by one. missing() names the first that it lacks.
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

// Sets the directories that are searched before all others, from the next search on.
void set_library_directories(std::vector<std::string> directories);

}  // namespace mst::cuda
