// Which keys a query sees in attention, the same for all its implementations.
#pragma once

#include <cstdint>

#include "../philox.h"

namespace mst {

struct AttentionGeometry {
  std::int64_t N, T, H, G, D, window;  // window 0: none
  const std::int32_t* document_start;  // null: none

  // Query n sees keys [first_key(n), n]; both are rows of N. Within a sequence first_key never decreases from one query to the next.
  MST_HOST_DEVICE std::int64_t first_key(std::int64_t n) const {
    const std::int64_t sequence = n / T * T;
    return sequence + first_position(sequence, static_cast<int>(n - sequence));
  }
  MST_HOST_DEVICE bool sees(std::int64_t query, std::int64_t key) const {
    return key <= query && key >= first_key(query);
  }
  // The same with positions that count from the first row of the sequence.
  MST_HOST_DEVICE int first_position(std::int64_t sequence, int query) const {
    int first = 0;
    if (window > 0 && query >= window) first = static_cast<int>(query - window + 1);
    if (document_start) {
      const int start = static_cast<int>(document_start[sequence + query] - sequence);
      if (start > first) first = start;
    }
    return first;
  }
  // Queries [key, end_of_seers) of a sequence see at least one of its keys [key, key_end); later queries see none.
  MST_HOST_DEVICE int end_of_seers(std::int64_t sequence, int key, int key_end) const {
    int seers = key + 1, end = static_cast<int>(T);  // the answer lies in [seers, end]
    while (seers < end) {
      const int middle = seers + (end - seers) / 2;
      if (first_position(sequence, middle) < key_end)
        seers = middle + 1;
      else
        end = middle;
    }
    return end;
  }
};

}  // namespace mst
