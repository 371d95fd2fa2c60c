// The file of timed choices; see tuning.h. A line each: the key, a colon, the algorithm's eight words. Lines that make no sense are
// passed over; a file that cannot be written costs the next run its time.
#include "tuning.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

namespace mst::cuda {
namespace {

thread_local std::string file_path;  // empty: no tuning
thread_local std::map<std::string, CublasLtAlgorithm> known;

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

void use_tuning(int device, const std::string& directory) {
  known.clear();
  file_path.clear();
  if (directory.empty()) return;
  const CublasLtSearch library = find_cublaslt();
  cudaDeviceProp properties{};
  if (library.path.empty() || cudaGetDeviceProperties(&properties, device) != cudaSuccess) return;
  std::string name = properties.name;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  file_path = message_of(directory, "/products-", name, '-', library.version, ".txt");
  std::ifstream file(file_path);
  for (std::string line; std::getline(file, line);)
    if (const auto entry = parse(line)) known[entry->first] = entry->second;
}

bool tunes() {
  return !file_path.empty();
}

std::optional<CublasLtAlgorithm> find_tuned(const std::string& key) {
  const auto found = known.find(key);
  return found == known.end() ? std::nullopt : std::optional(found->second);
}

void keep_tuned(const std::string& key, const CublasLtAlgorithm& algorithm) {
  known[key] = algorithm;
  std::ostringstream line;
  line << key << ':' << std::hex;
  for (const std::uint64_t word : algorithm.data) line << ' ' << word;
  line << '\n';
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(file_path).parent_path(), ignored);
  std::ofstream(file_path, std::ios::app) << line.str();  // one write, so that two processes leave whole lines
}

}  // namespace mst::cuda
