// The library that connects CPU ranks by Gloo, which is loaded only where there are several.
#pragma once

#include <cstddef>

extern "C" {

struct MstGloo;

enum MstGlooDtype { mst_gloo_f32, mst_gloo_f64, mst_gloo_bf16 };

// What went wrong, cut to this length.
struct MstGlooProblem {
  char text[512];
};

// Each function returns whether it succeeded; if not, it fills `problem`.

// host: an address of this machine. address: `address_bytes` bytes, which last as long as the group; they tell the other ranks.
bool mst_gloo_open(int rank, int size, const char* host, double timeout_seconds, MstGloo** group, const char** address,
                   std::size_t* address_bytes, MstGlooProblem* problem);
// addresses: each rank's, one after another, all of the same length.
bool mst_gloo_connect(MstGloo* group, const char* addresses, std::size_t address_bytes, MstGlooProblem* problem);
// data, `count` elements := the sum over ranks, the same bits on each.
bool mst_gloo_all_reduce(MstGloo* group, void* data, std::size_t count, MstGlooDtype dtype, MstGlooProblem* problem);
// Of data, `count` elements, rank r's part [r part, min((r + 1) part, count)) := the sum over ranks, added in their order, bf16 in f32 and
// rounded once. Other parts are left as they are. part * size >= count.
bool mst_gloo_reduce_scatter(MstGloo* group, void* data, std::size_t count, std::size_t part, MstGlooDtype dtype, MstGlooProblem* problem);
// data, `bytes` bytes := each rank's part of `part` bytes, or fewer at the end.
bool mst_gloo_all_gather(MstGloo* group, void* data, std::size_t bytes, std::size_t part, MstGlooProblem* problem);
// Part i, `part_bytes` bytes, of `to` := part r of `from` on the i-th of ranks [first, first + size), of which this is the r-th.
bool mst_gloo_all_to_all(MstGloo* group, void* from, void* to, std::size_t part_bytes, int first, int size, MstGlooProblem* problem);
// From any thread.
bool mst_gloo_abort(MstGloo* group, MstGlooProblem* problem);
void mst_gloo_close(MstGloo* group);
}
