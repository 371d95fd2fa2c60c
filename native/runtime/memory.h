// The memory of a device: addresses are reserved first; memory is then mapped to them piece by piece.
#pragma once

#include <cstddef>

#include "check.h"

namespace mst {

// The device has too little memory left for a request. It stays usable.
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
  virtual void unmap(char* begin, std::size_t bytes) = 0;  // whole pieces of map; call it after the commands that use them have run
  virtual std::size_t available_bytes() const = 0;         // the most that map could still get
  // Host memory for copies beside commands at the full speed of the link; pinned on CUDA. Freed with this object at the latest.
  virtual char* allocate_host(std::size_t bytes) = 0;
  virtual void free_host(char* begin) = 0;  // memory of allocate_host(); call it after the commands and copies that use it have run
};

}  // namespace mst
