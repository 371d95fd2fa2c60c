// libcuda.so.1 of a machine on which no CUDA device comes up: it answers what NVIDIA's runtime asks first. Environment variables:
//   FAKE_DRIVER_VERSION   the CUDA version that it supports, 12080 for 12.8; default 13000
//   FAKE_DRIVER_INIT      what cuInit returns; default 0
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

int number(const char* variable, int otherwise) {
  const char* const value = std::getenv(variable);
  return value ? std::atoi(value) : otherwise;
}

int not_supported() {
  return 801;
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
  return number("FAKE_DRIVER_INIT", 0);
}
int cuDriverGetVersion(int* version) {
  *version = number("FAKE_DRIVER_VERSION", 13000);
  return 0;
}
int cuGetProcAddress_v2(const char* name, void** call, int, std::uint64_t, int* result) {
  if (std::strcmp(name, "cuInit") == 0)
    *call = reinterpret_cast<void*>(cuInit);
  else if (std::strcmp(name, "cuDriverGetVersion") == 0)
    *call = reinterpret_cast<void*>(cuDriverGetVersion);
  else if (std::strcmp(name, "cuGetProcAddress") == 0)
    *call = reinterpret_cast<void*>(cuGetProcAddress_v2);
  else
    *call = reinterpret_cast<void*>(not_supported);
  if (result) *result = 0;
  return 0;
}
int cuGetProcAddress(const char* name, void** call, int version, std::uint64_t flags) {
  return cuGetProcAddress_v2(name, call, version, flags, nullptr);
}
}
