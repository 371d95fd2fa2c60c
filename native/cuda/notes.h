// What a device's kernels have noted: status words for each command that asks for them, kept until they are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../runtime/context.h"
#include "stream.h"

namespace mst::cuda {

class Notes {
 public:
  explicit Notes(const Stream& stream);
  ~Notes();
  Notes(const Notes&) = delete;
  Notes& operator=(const Notes&) = delete;

  void begin_command(std::uint64_t number) {
    command_ = number;
  }
  std::size_t size() const {
    return commands_.size();
  }
  // The status words of the running command, in device memory; see status.h.
  long long* of_command();
  // For replays: the kernels of a graph write to the words that they had at capture. `size` is the number of notes then.
  void replay(std::size_t size) {
    if (commands_.size() < size) commands_.resize(size, command_);
  }
  std::vector<mst::Context::Note> take();

 private:
  const Stream& stream_;
  long long* words_ = nullptr;           // on the device
  std::vector<std::uint64_t> commands_;  // the commands whose words are in use, in order
  std::uint64_t command_ = 0;
};

}  // namespace mst::cuda
