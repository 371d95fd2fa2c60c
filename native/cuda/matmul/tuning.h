// The fastest of cuBLASLt's algorithms for a kind of product. It is timed once and kept in a file, so that every run on the machine uses
// the same algorithm and computes the same bits.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "../libraries/cublaslt.h"

namespace mst::cuda {

class Tuning {
 public:
  // directory: where the file for this model of GPU is. Empty: nothing is timed, and the library's first choice is used.
  Tuning(int device, const std::string& directory);

  bool is_on() const {
    return !path_.empty();
  }
  // key: everything that the choice depends on, except the model of GPU and the library's version; no line breaks.
  std::optional<CublasLtAlgorithm> find(const std::string& key) const;
  void keep(const std::string& key, const CublasLtAlgorithm& algorithm);

 private:
  std::string path_;  // of the file; empty: no tuning
  std::map<std::string, CublasLtAlgorithm> known_;
};

}  // namespace mst::cuda
