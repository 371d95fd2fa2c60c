// The addon's functions that are not ops: opening devices, their memory, copies to and from JavaScript.
#pragma once

#include "javascript.h"

namespace mst {

// Adds to exports, where `id` is the number of an open device and addresses are numbers:
//   open_device(kind: 'cpu' | 'cuda', index, threads, attention, products, tuningDirectory)
//     → { id, granularity, attention, builtinMatmulReason }   see open_cpu and open_cuda; throws if the device cannot be used
//   close_device(id)                      drops commands that have not run
//   close_all()                           closes all devices; call it at the end of the process
//   reserve(id, bytes) → address          addresses without memory
//   map(id, address, bytes)               maps memory to reserved addresses
//   unmap(id, address, bytes)             enqueued
//   available_bytes(id) → number
//   allocate_host(id, bytes) → address    host memory for copy_beside, pinned on CUDA
//   free_host(id, address)                waits for all commands
//   reallocate_host(id, address | 0, bytes) → Promise of an address   both, enqueued: frees the memory there, if it is not 0, and allocates
//   write(id, address, bytes: Uint8Array, owner?)   copies the bytes now and enqueues the transfer; owner: see failures.h
//   read(id, address, into: Uint8Array, owner?) → Promise   resolves when `into` holds the bytes; rejects with the error of the
//                                         command that should have written them
//   copy_within(id, to, from, bytes), fill_bytes(id, address, value, bytes)   enqueued
//   check_bytes(id, address, value, bytes, what)   enqueued; fails if a byte is not `value`
//   copy_beside(id, stream: 0 to the host | 1 to the device, to, from, bytes) → event   enqueued; see context.h. The address on
//                                         the host's side of the copy may be host memory
//   wait_for(id, event)                   enqueued
//   synchronize(id) → Promise             resolves when all commands have run or failed
//   join_group(id, rank, size, host, timeoutSeconds) → Uint8Array   makes the device one of a group's; what the other ranks need to
//                                         connect to it; see process_group.h
//   connect_group(id, addresses: Uint8Array[]) → Promise   resolves when all ranks have called it; addresses: those of all, by rank
//   abort_group(id)                       collectives that run, and all later ones, fail
//   begin_capture(id), end_capture(id), replay(id)   enqueued; for benchmarks, see Context::begin_capture
//   describe_cuda() → object, set_cuda_library_path(directories)
// Each throws if an argument is invalid or is not memory of the device. The error's code is 'OUT_OF_MEMORY' if the device or the host has
// too little memory left.
void add_device_calls(Napi::Env env, Napi::Object exports);

}  // namespace mst
