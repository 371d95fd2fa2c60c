// What every call from JavaScript goes through. C++ exceptions become JavaScript errors here. They are dropped if JavaScript may not run
// any more, for example in a worker that is being terminated.
#pragma once

#ifndef NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS  // for errors while the module itself is loaded
#endif
#include <napi.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <new>

#include "context.h"

namespace mst {

// Becomes a TypeError.
struct ArgumentError : Error {
  using Error::Error;
};

// The `code` of JavaScript errors, by which callers tell these two apart.
inline constexpr const char *out_of_memory_code = "OUT_OF_MEMORY", *device_lost_code = "DEVICE_LOST";

using CreateError = napi_status (*)(napi_env, napi_value code, napi_value message, napi_value* error);

// Returns a JavaScript error, or null if none can be made. `code` may be null.
inline napi_value make_error(napi_env env, CreateError create, const char* code, const char* message) noexcept {
  napi_value code_value = nullptr, text = nullptr, error = nullptr;
  if (code && napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) != napi_ok) return nullptr;
  if (napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text) != napi_ok) return nullptr;
  return create(env, code_value, text, &error) == napi_ok ? error : nullptr;
}

inline void throw_error(napi_env env, CreateError create, const char* code, const char* message) noexcept {
  if (const napi_value error = make_error(env, create, code, message)) napi_throw(env, error);
}

// Calls function(), which returns a Napi::Value or nothing, and turns its exceptions into JavaScript errors.
template <class Function>
Napi::Value guarded(napi_env env, const Function& function) noexcept {
  try {
    if constexpr (std::is_void_v<decltype(function())>)
      function();
    else
      return function();
  } catch (const Napi::Error& error) {  // thrown by JavaScript, for example by a getter
    try {
      napi_throw(env, error.Value());
    } catch (...) {  // JavaScript may not run any more
    }
  } catch (const ArgumentError& error) {
    throw_error(env, napi_create_type_error, nullptr, error.what());
  } catch (const OutOfMemory& error) {
    throw_error(env, napi_create_error, out_of_memory_code, error.what());
  } catch (const std::bad_alloc&) {
    throw_error(env, napi_create_error, out_of_memory_code, "host: out of memory");
  } catch (const DeviceLost& error) {
    throw_error(env, napi_create_error, device_lost_code, error.what());
  } catch (const std::exception& error) {
    throw_error(env, napi_create_error, nullptr, error.what());
  } catch (...) {
    throw_error(env, napi_create_error, nullptr, "native: unknown error");
  }
  return {};
}

// JavaScript's Number.MAX_SAFE_INTEGER: 2^53 - 1.
inline constexpr std::int64_t max_safe_integer = 9007199254740991;

// Whether a number is an integer in [min, max]. NaN and infinities are not.
inline bool is_integer(double number, std::int64_t min, std::int64_t max) {
  return number == std::floor(number) && number >= static_cast<double>(min) && number <= static_cast<double>(max);
}

}  // namespace mst
