// Which of cuBLASLt's algorithms is the fastest for a kind of product: timed once, and kept in a file, so that every run on the machine
// takes the same one and gives the same bits.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "../libraries/cublaslt.h"

namespace mst::cuda {

class Tuning {
 public:
  // directory: where the file of this kind of device is; empty: the library's first choice is taken, nothing is timed.
  Tuning(int device, const std::string& directory);

  bool is_on() const {
    return !path_.empty();
  }
  // key: everything that the choice depends on but the device and the library's version, without line breaks.
  std::optional<CublasLtAlgorithm> find(const std::string& key) const;
  void keep(const std::string& key, const CublasLtAlgorithm& algorithm);

 private:
  std::string path_;  // of the file; empty: no tuning
  std::map<std::string, CublasLtAlgorithm> known_;
};

}  // namespace mst::cuda
