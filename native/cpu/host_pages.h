// Memory of the host for copies beside commands, which a device that reads it by itself pins.
#pragma once

#include <cstddef>

namespace mst::cpu {

// Maps `bytes` of zeros, for this process and not for its children: what a device reads must stay where it is. Throws OutOfMemory, with
// both numbers, if the machine or the process's control group has not as much, whatever else may be given back.
char* map_host(std::size_t bytes);
void unmap_host(char* begin, std::size_t bytes) noexcept;

// Makes the system provide all pages of a map_host(), by as many threads as there are cores, at most 16: one thread zeroes 1 to 2 GB/s.
void touch_host(char* begin, std::size_t bytes);

}  // namespace mst::cpu
