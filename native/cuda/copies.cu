// See copies.h.
#include "copies.h"

#include <iterator>
#include <utility>

namespace mst::cuda {

// Memory is released next, so no copy may still run.
Copies::~Copies() {
  for (const auto& way : ways_)
    if (way) cudaStreamSynchronize(way->stream.get());
}

void Copies::copy(mst::Context::CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t number) {
  std::unique_ptr<Way>& way = ways_[stream];
  if (!way) way = std::make_unique<Way>();
  OwnedEvent begin = event(), end = event();
  begin->record(commands_.get());
  begin->delay(way->stream.get());
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, way->stream.get()));
  try {
    end->record(way->stream.get());
    way->ends.emplace(number, std::move(end));
  } catch (...) {  // otherwise nobody could wait for the copy
    cudaStreamSynchronize(way->stream.get());
    throw;
  }
  unused_.push_back(std::move(begin));  // may be recorded again: a wait is for the recording at the time of the wait
}

void Copies::wait_for(std::uint64_t number) {
  for (const auto& way : ways_) {
    if (!way) continue;
    const auto found = way->ends.find(number);
    if (found == way->ends.end()) continue;
    found->second->delay(commands_.get());
    const auto after = std::next(found);
    for (auto end = way->ends.begin(); end != after; end = way->ends.erase(end)) unused_.push_back(std::move(end->second));
    return;
  }
}

void Copies::synchronize() {
  for (const auto& way : ways_) {
    if (!way) continue;
    way->stream.synchronize();
    for (auto& [number, end] : way->ends) unused_.push_back(std::move(end));
    way->ends.clear();
  }
}

Copies::OwnedEvent Copies::event() {
  if (unused_.empty()) return std::make_unique<Event>(cudaEventDisableTiming);
  OwnedEvent found = std::move(unused_.back());
  unused_.pop_back();
  return found;
}

}  // namespace mst::cuda
