// See driver.h.
#include "driver.h"

#include "../common/check.h"

namespace mst::cuda {
namespace {

template <class Function>
void find(const char* name, Function& function) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
  MST_CHECK(status == cudaSuccess && found == cudaDriverEntryPointSuccess, "cuda: the driver has no ", name, "; it is too old");
  function = reinterpret_cast<Function>(address);
}

}  // namespace

const Driver& driver() {
  static const Driver found = [] {
    Driver driver{};
    find("cuMemAddressReserve", driver.mem_address_reserve);
    find("cuMemAddressFree", driver.mem_address_free);
    find("cuMemCreate", driver.mem_create);
    find("cuMemRelease", driver.mem_release);
    find("cuMemMap", driver.mem_map);
    find("cuMemUnmap", driver.mem_unmap);
    find("cuMemSetAccess", driver.mem_set_access);
    find("cuMemGetAllocationGranularity", driver.mem_get_allocation_granularity);
    find("cuGetErrorString", driver.get_error_string);
    return driver;
  }();
  return found;
}

}  // namespace mst::cuda
