// The file of timed choices; see tuning.h. Each line has the key, a colon and the algorithm's eight words. Lines that cannot be parsed are
// ignored. If the file cannot be written, the next run times again.
#include "tuning.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace mst::cuda {
namespace {

std::optional<std::pair<std::string, CublasLtAlgorithm>> parse(const std::string& line) {
  const std::size_t colon = line.find(':');
  if (colon == std::string::npos) return std::nullopt;
  std::istringstream words(line.substr(colon + 1));
  CublasLtAlgorithm algorithm{};
  for (std::uint64_t& word : algorithm.data)
    if (!(words >> std::hex >> word)) return std::nullopt;
  return std::pair{line.substr(0, colon), algorithm};
}

}  // namespace

Tuning::Tuning(int device, const std::string& directory) {
  if (directory.empty()) return;
  const LibrarySearch library = find_cublaslt();
  cudaDeviceProp properties{};
  if (library.path.empty() || cudaGetDeviceProperties(&properties, device) != cudaSuccess) return;
  std::string name = properties.name;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  path_ = message_of(directory, "/products-", name, '-', library.version, ".txt");
  std::ifstream file(path_);
  for (std::string line; std::getline(file, line);)
    if (const auto entry = parse(line)) known_[entry->first] = entry->second;
}

std::optional<CublasLtAlgorithm> Tuning::find(const std::string& key) const {
  const auto found = known_.find(key);
  return found == known_.end() ? std::nullopt : std::optional(found->second);
}

void Tuning::keep(const std::string& key, const CublasLtAlgorithm& algorithm) {
  known_[key] = algorithm;
  std::ostringstream line;
  line << key << ':' << std::hex;
  for (const std::uint64_t word : algorithm.data) line << ' ' << word;
  line << '\n';
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  std::ofstream(path_, std::ios::app) << line.str();  // one write, so that two processes leave whole lines
}

}  // namespace mst::cuda
