// See notes.h.
#include "notes.h"

#include <array>

#include "common/status.h"

namespace mst::cuda {

constexpr std::size_t bytes_of_words = mst::Context::max_notes * num_status_words * sizeof(long long);

Notes::Notes(const Stream& stream) : stream_(stream) {
  CUDA_CHECK(cudaMalloc(&words_, bytes_of_words));
  CUDA_CHECK(cudaMemsetAsync(words_, 0, bytes_of_words, stream.get()));
}

Notes::~Notes() {
  cudaFree(words_);
}

long long* Notes::of_command() {
  if (commands_.empty() || commands_.back() != command_) {
    MST_CHECK(commands_.size() < mst::Context::max_notes, "cuda: no status words are left");
    commands_.push_back(command_);
  }
  return words_ + (commands_.size() - 1) * num_status_words;
}

std::vector<mst::Context::Note> Notes::take() {
  std::vector<mst::Context::Note> notes;
  if (commands_.empty()) return notes;
  std::vector<std::array<long long, num_status_words>> words(commands_.size());
  CUDA_CHECK(cudaMemcpyAsync(words.data(), words_, words.size() * sizeof words[0], cudaMemcpyDeviceToHost, stream_.get()));
  stream_.synchronize();
  constexpr const char* ops[] = {"", "embedding_forward", "embedding_backward", "cross_entropy"};
  for (std::size_t i = 0; i < words.size(); ++i)
    if (const auto [status, row, id, size] = words[i]; status != status_ok)
      notes.push_back({commands_[i], message_of(ops[status], ": row ", row, " holds id ", id, ", outside [0, ", size, ")")});
  if (!notes.empty()) CUDA_CHECK(cudaMemsetAsync(words_, 0, words.size() * sizeof words[0], stream_.get()));
  commands_.clear();
  return notes;
}

}  // namespace mst::cuda
