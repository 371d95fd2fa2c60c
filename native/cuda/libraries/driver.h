// The driver's calls for virtual memory, found at run time. Nothing links libcuda, so that the addon loads without a driver.
#pragma once

#include <cuda.h>

#include <string>

namespace mst::cuda {

struct Driver {
  decltype(&cuMemAddressReserve) mem_address_reserve;
  decltype(&cuMemAddressFree) mem_address_free;
  decltype(&cuMemCreate) mem_create;
  decltype(&cuMemRelease) mem_release;
  decltype(&cuMemMap) mem_map;
  decltype(&cuMemUnmap) mem_unmap;
  decltype(&cuMemSetAccess) mem_set_access;
  decltype(&cuMemGetAllocationGranularity) mem_get_allocation_granularity;
  decltype(&cuGetErrorString) get_error_string;
};

// Throws if the driver lacks one of them.
const Driver& driver();

// Why a CUDA device cannot be used, and what helps; empty if it can.
std::string device_problem(int index);

}  // namespace mst::cuda
