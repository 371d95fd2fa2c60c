// Errors: a failed check throws mst::Error; its message is put together from the arguments. Nothing aborts the process.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mst {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string message_of(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace mst

#define MST_FAIL(...) throw ::mst::Error(::mst::message_of(__VA_ARGS__))

// MST_CHECK(condition, "op: what is wrong, ", found, " and ", required)
#define MST_CHECK(condition, ...)            \
  do {                                       \
    if (!(condition)) MST_FAIL(__VA_ARGS__); \
  } while (false)
