// Keeps track of the bytes of a device that hold no value because the command that should have written them failed. An error belongs to
// values, not to the queue: commands that read such bytes fail with the same error, and commands that overwrite them clear the mark.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <map>
#include <vector>

namespace mst {

// The bytes of one tensor of a command. `owner` identifies the allocation that they belong to: a number that grows, 0 if unknown. A failure
// of an earlier allocation does not concern a later one at the same addresses.
struct Access {
  enum Kind : std::uint8_t { read, write, update } kind;  // update: reads what it writes
  std::uintptr_t begin, end;
  std::uint64_t owner = 0;
};
using Accesses = std::vector<Access>;

// An error and the number of the command that raised it. A null error means no failure.
struct Failure {
  std::exception_ptr error;
  std::uint64_t command = 0;

  explicit operator bool() const {
    return error != nullptr;
  }
};

// Nearly always empty; of() and heal() are then one comparison.
class Failures {
 public:
  // The earliest failure among the bytes that a command reads; none if they all hold values.
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

  // Marks what a command should have written, after it failed or did not run because its input had failed.
  void mark(const Accesses& accesses, const Failure& failure) {
    for (const Access& access : accesses) {
      if (access.kind == Access::read || access.begin == access.end) continue;
      cut(access.begin, access.end);
      marks_[access.begin] = {access.end, access.owner, failure};
    }
  }

  // Clears the marks of what a command has written.
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
