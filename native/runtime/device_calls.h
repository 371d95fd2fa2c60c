// The addon's calls that are not ops: opening devices, their memory, copies to and from JavaScript.
#pragma once

#include "javascript.h"

namespace mst {

// Adds to exports:
//   open_device(kind: 'cpu' | 'cuda', index, threads, attention, products, tuningDirectory)
//     → { id, granularity, attention, ownProductsReason }   see open_cpu and open_cuda; throws where the device cannot be used
//   close_device(id), close_all()                      drops what has not run; close_all: at the end of the process
//   reserve(id, bytes) → address                       addresses without memory
//   map(id, address, bytes), unmap(id, address, bytes) memory behind them; map throws an error with code 'OUT_OF_MEMORY'
//   available_bytes(id) → number
//   allocate_host(id, bytes) → address, free_host(id, address)   memory of the host for copy_beside, pinned on cuda. allocate_host throws
//   an
//                                                      error with code 'OUT_OF_MEMORY'; free_host waits for all commands
//   write(id, address, bytes: Uint8Array, owner?)      copies now, enqueues the transfer; owner: see failures.h
//   copy_within(id, to, from, bytes), fill_bytes(id, address, value, bytes), check_bytes(id, address, value, bytes, what)   enqueued
//   copy_beside(id, stream: 0 to the host | 1 to the device, to, from, bytes) → event, wait_for(id, event)   enqueued; see context.h. To
//                                                      the host `to` may be the host's memory, to the device `from`
//   read(id, address, into: Uint8Array, owner?) → Promise   resolves when `into` holds the bytes; rejects with the error of what should
//                                                      have written them
//   synchronize(id) → Promise                          resolves when all has run, failed commands too
// Each throws where an argument is none, or no memory of the device. Where the host has no memory left the error's code is 'OUT_OF_MEMORY'.
//   begin_capture(id), end_capture(id), replay(id)     enqueued; for benchmarks, see Context::begin_capture
//   describe_cuda() → object, set_cuda_library_path(directories)
void add_device_calls(Napi::Env env, Napi::Object exports);

}  // namespace mst
