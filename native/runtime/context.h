// The execution context of a device: what its commands share. Every op gets it as its first argument. No state of a device is kept anywhere
// else, so that two devices, or two openings of one, are independent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "process_group.h"
#include "tensor.h"

namespace mst {

// Thrown by all calls on a device that an error has made unusable for the rest of the process.
struct DeviceLost : Error {
  using Error::Error;
};

struct Device {
  enum Kind : std::uint8_t { cpu, cuda } kind = cpu;
  int index = 0;
};

// All calls come from the device's command thread, in the order of commands; only loss() and memory() may come from any thread.
class Context {
 public:
  virtual ~Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Device& device() const {
    return device_;
  }
  virtual Memory& memory() = 0;

  // Why our kernels compute products; empty if they do not.
  virtual std::string builtin_matmul_reason() const {
    return "";
  }
  // Whether cuDNN computes attention where it can; workspace sizes depend on it.
  virtual bool uses_cudnn_attention() const {
    return false;
  }

  virtual void attach_thread() = 0;                                             // called once, at the start of the command thread
  virtual void copy_in(void* to, const void* from, std::size_t bytes) = 0;      // host → device; `from` may be freed on return
  virtual void copy_out(void* to, const void* from, std::size_t bytes) = 0;     // device → host; complete on return
  virtual void copy_within(void* to, const void* from, std::size_t bytes) = 0;  // device → device
  virtual void fill_bytes(void* to, int value, std::size_t bytes) = 0;
  virtual void synchronize() = 0;  // waits until all commands and all copies beside them have completed

  // Copies that run beside commands, on one stream for each direction. The copies of a stream run in order.
  enum CopyStream : std::uint8_t { to_host, to_device };
  // Copies after all commands so far, and beside later ones. `to` or `from` may be from memory().allocate_host(). `event` is the number of
  // its end; numbers grow. Until wait_for(event) no command may write `from`, nor read or write `to`. Refused while commands are captured.
  virtual void copy_beside(CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t event) {
    static_cast<void>(stream), static_cast<void>(event);
    copy_within(to, from, bytes);  // already complete on return
  }
  // Makes later commands run after the copy with this event. Does nothing if there is no such copy, as when it has failed.
  virtual void wait_for(std::uint64_t event) {
    static_cast<void>(event);
  }

  // Makes this device one of a group's; connect() follows. It leaves an earlier group.
  ProcessGroup& join(const Rank& rank) {
    group_.reset();
    group_ = make_group(rank);
    return *group_;
  }
  ProcessGroup& group() {
    MST_CHECK(group_, "the device is in no group of ranks");
    return *group_;
  }

  // Kernels cannot throw: they note errors (an id out of range) on the device. begin_command: all notes from here on belong to the command
  // with this number; numbers grow.
  struct Note {
    std::uint64_t command;
    std::string message;
  };
  virtual void begin_command(std::uint64_t number) {
    static_cast<void>(number);
  }
  // How many commands since take_notes() have kernels that may have noted something. There is room for max_notes.
  virtual std::size_t num_notes() const {
    return 0;
  }
  // What they have noted. Call it after synchronize().
  virtual std::vector<Note> take_notes() {
    return {};
  }
  static constexpr std::size_t max_notes = 1024;

  // Call it after a failure. Says what has made the device unusable for the rest of the process; empty if it still works.
  virtual std::string loss() {
    return "";
  }

  // For benchmarks: commands between begin_capture() and end_capture() do not run but become one graph. replay() runs it, with the
  // addresses and scalars of the capture. During capture no command may wait for the device or copy to or from the host (copy_in, copy_out,
  // fences). None may be the first of its kind, since kernels are loaded, and products and attention planned, at their first run. Memory
  // that the commands used must stay free until the last replay.
  virtual void begin_capture() {
    refuse_capture();
  }
  virtual void end_capture() {
    refuse_capture();
  }
  virtual void replay() {
    refuse_capture();
  }

 protected:
  explicit Context(const Device& device) : device_(device) {}

  virtual std::unique_ptr<ProcessGroup> make_group(const Rank& rank) {
    static_cast<void>(rank);
    MST_FAIL("this device cannot be in a group of ranks");
  }
  // What the group needs must outlive it.
  void leave() {
    group_.reset();
  }

 private:
  [[noreturn]] static void refuse_capture() {
    MST_FAIL("only CUDA devices capture and replay commands");
  }

  Device device_;
  std::unique_ptr<ProcessGroup> group_;
};

// Casts a context to its device's class. Call it only if device().kind says so.
namespace cpu {
class Context;
Context& context_of(mst::Context& context);
}  // namespace cpu
namespace cuda {
class Context;
Context& context_of(mst::Context& context);
}  // namespace cuda

}  // namespace mst
