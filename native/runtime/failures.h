// Which bytes of a device hold no value, because the command that should have written them failed: an error belongs to values, not to the
// queue. Commands that read such bytes fail with the same error; commands that write them make them good again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <map>
#include <vector>

namespace mst {

// The bytes of one tensor of a command. `owner` numbers the piece of memory that they belong to between its allocation and its release, and
// grows; 0 is unknown. What was noted of an earlier owner of the same bytes is not the later one's.
struct Access {
  enum Kind : std::uint8_t { read, write, update } kind;  // update: reads what it writes
  std::uintptr_t begin, end;
  std::uint64_t owner = 0;
};
using Accesses = std::vector<Access>;

// An error and the number of the command that it came from; no error: none.
struct Failure {
  std::exception_ptr error;
  std::uint64_t command = 0;

  explicit operator bool() const {
    return error != nullptr;
  }
};

// Empty nearly always; then every call is one comparison.
class Failures {
 public:
  // The earliest failure of the bytes that a command reads; none: all hold values.
  Failure of(const Accesses& accesses) {
    if (marks_.empty()) return {};
    const Failure* first = nullptr;
    for (const Access& access : accesses) {
      if (access.kind == Access::write || access.begin == access.end) continue;
      for (auto at = first_overlap(access.begin); at != marks_.end() && at->first < access.end;) {
        if (access.owner != 0 && at->second.owner != 0 && access.owner != at->second.owner) {
          at = marks_.erase(at);
        } else {
          if (!first || at->second.failure.command < first->command) first = &at->second.failure;
          ++at;
        }
      }
    }
    return first ? *first : Failure{};
  }

  // The command failed, or did not run because what it reads had failed.
  void mark(const Accesses& accesses, const Failure& failure) {
    for (const Access& access : accesses) {
      if (access.kind == Access::read || access.begin == access.end) continue;
      cut(access.begin, access.end);
      marks_[access.begin] = {access.end, access.owner, failure};
    }
  }

  // The command ran.
  void heal(const Accesses& accesses) {
    if (marks_.empty()) return;
    for (const Access& access : accesses)
      if (access.kind != Access::read && access.begin < access.end) cut(access.begin, access.end);
  }

 private:
  struct Mark {
    std::uintptr_t end;
    std::uint64_t owner;
    Failure failure;
  };
  using Marks = std::map<std::uintptr_t, Mark>;  // by begin; none overlap

  Marks::iterator first_overlap(std::uintptr_t begin) {
    auto at = marks_.upper_bound(begin);
    if (at != marks_.begin() && std::prev(at)->second.end > begin) --at;
    return at;
  }

  void cut(std::uintptr_t begin, std::uintptr_t end) {
    for (auto at = first_overlap(begin); at != marks_.end() && at->first < end;) {
      const std::uintptr_t mark_begin = at->first;
      const Mark mark = at->second;
      at = marks_.erase(at);
      if (mark_begin < begin) marks_[mark_begin] = {begin, mark.owner, mark.failure};
      if (mark.end > end) marks_[end] = mark;
    }
  }

  Marks marks_;
};

}  // namespace mst
