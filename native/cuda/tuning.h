// Which of cuBLASLt's algorithms is the fastest for a kind of product: timed once, and kept in a file, so that every run on the machine
// takes the same one and gives the same bits.
#pragma once

#include <optional>
#include <string>

#include "cublaslt.h"

namespace mst::cuda {

// Of the calling thread's device, from now on. directory: where the file is; empty: the library's first choice is taken, nothing is timed.
void use_tuning(int device, const std::string& directory);
bool tunes();

// key: everything that the choice depends on but the device and the library's version, without line breaks.
std::optional<CublasLtAlgorithm> find_tuned(const std::string& key);
void keep_tuned(const std::string& key, const CublasLtAlgorithm& algorithm);

}  // namespace mst::cuda
