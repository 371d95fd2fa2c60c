// Copies beside commands: one stream for each direction, and the events of copies that no command has waited for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "../runtime/context.h"
#include "stream.h"

namespace mst::cuda {

class Copies {
 public:
  // commands: the stream that commands run on.
  explicit Copies(const Stream& commands) : commands_(commands) {}
  ~Copies();
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  // See mst::Context.
  void copy(mst::Context::CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t event);
  void wait_for(std::uint64_t event);
  void synchronize();

 private:
  using OwnedEvent = std::unique_ptr<Event>;
  struct Way {
    Stream stream;
    std::map<std::uint64_t, OwnedEvent> ends;  // by number; events up to one that was waited for are dropped
  };
  OwnedEvent event();

  const Stream& commands_;
  std::array<std::unique_ptr<Way>, 2> ways_;  // each made at its first copy
  std::vector<OwnedEvent> unused_;
};

}  // namespace mst::cuda
