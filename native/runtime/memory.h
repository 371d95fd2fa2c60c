// The memory of a device: addresses are reserved first, and memory is put behind them piece by piece.
#pragma once

#include <cstddef>

#include "check.h"

namespace mst {

// The device has no memory left for what was asked; it stays usable.
struct OutOfMemory : Error {
  using Error::Error;
};

// Calls may come from any thread.
class Memory {
 public:
  virtual ~Memory() = default;

  virtual std::size_t granularity() const = 0;             // of map and unmap, in bytes
  virtual char* reserve(std::size_t bytes) = 0;            // addresses without memory; released with this object
  virtual void map(char* begin, std::size_t bytes) = 0;    // puts zeroed (cpu) or undefined (cuda) memory behind reserved addresses
  virtual void unmap(char* begin, std::size_t bytes) = 0;  // whole pieces, after the commands that use them have run
  virtual std::size_t available_bytes() const = 0;         // what map could still give
  // Memory of the host that copies beside commands reach at the link's full speed: pinned on cuda. Freed with this object at the latest.
  virtual char* allocate_host(std::size_t bytes) = 0;
  virtual void free_host(char* begin) = 0;  // what allocate_host() gave, after the commands and copies that use it
};

}  // namespace mst
