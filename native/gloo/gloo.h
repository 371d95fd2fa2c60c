// The library that connects CPU ranks by Gloo, which is loaded only where there are several. Functions return null, or what went wrong;
// that text lasts until the thread's next call.
#pragma once

#include <cstddef>

extern "C" {

struct MstGloo;

enum MstGlooDtype { mst_gloo_f32, mst_gloo_f64, mst_gloo_bf16 };

// host: an address of this machine. address: `address_bytes` bytes, which last as long as the group; they tell the other ranks.
const char* mst_gloo_open(int rank, int size, const char* host, double timeout_seconds, MstGloo** group, const char** address,
                          std::size_t* address_bytes);
// addresses: each rank's, one after another, all of the same length.
const char* mst_gloo_connect(MstGloo* group, const char* addresses, std::size_t address_bytes);
// data, `count` elements := the sum over ranks, the same bits on each.
const char* mst_gloo_all_reduce(MstGloo* group, void* data, std::size_t count, MstGlooDtype dtype);
// From any thread.
const char* mst_gloo_abort(MstGloo* group);
void mst_gloo_close(MstGloo* group);
}
