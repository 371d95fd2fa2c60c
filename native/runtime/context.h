// The execution context of a device: what its commands share. Every op gets it as its first argument; nothing of a device is kept anywhere
// else, so that two devices, or two openings of one, never meet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"
#include "tensor.h"

namespace mst {

// Thrown by everything on a device that an error has made useless for the rest of the process.
struct DeviceLost : Error {
  using Error::Error;
};

struct Device {
  enum Kind : std::uint8_t { cpu, cuda } kind = cpu;
  int index = 0;
};

// Calls come from the device's command thread alone, in the order of commands; loss() and memory() from any thread.
class Context {
 public:
  virtual ~Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Device& device() const {
    return device_;
  }
  virtual Memory& memory() = 0;

  // Why products run by our kernels; empty where they do not.
  virtual std::string own_products_reason() const {
    return "";
  }
  // Whether attention runs by cuDNN where that applies, which decides workspace sizes.
  virtual bool uses_cudnn_attention() const {
    return false;
  }

  virtual void attach_thread() = 0;                                             // once, first thing on the command thread
  virtual void copy_in(void* to, const void* from, std::size_t bytes) = 0;      // host → device; `from` may be freed on return
  virtual void copy_out(void* to, const void* from, std::size_t bytes) = 0;     // device → host; complete on return
  virtual void copy_within(void* to, const void* from, std::size_t bytes) = 0;  // device → device
  virtual void fill_bytes(void* to, int value, std::size_t bytes) = 0;
  virtual void synchronize() = 0;  // waits until every command and every copy beside them so far has run

  // Copies that run beside commands: one stream for each way of the link. Those of a stream run in their order.
  enum CopyStream : std::uint8_t { to_host, to_device };
  // Copies after all commands so far and beside those that come; `to` or `from` may be of memory().allocate_host(). `event` is the number
  // of its end, which grows. Until wait_for(event) no command may write `from`, nor read or write `to`. Refused while commands are
  // captured.
  virtual void copy_beside(CopyStream stream, void* to, const void* from, std::size_t bytes, std::uint64_t event) {
    static_cast<void>(stream), static_cast<void>(event);
    copy_within(to, from, bytes);  // complete at once
  }
  // Commands from here on run after the copy with this event. Nothing where there is no such copy, as where it has failed.
  virtual void wait_for(std::uint64_t event) {
    static_cast<void>(event);
  }

  // Kernels cannot throw: what they find wrong (an id out of range) they note on the device. begin_command: what is noted from here on is
  // of the command with this number, which grows.
  struct Note {
    std::uint64_t command;
    std::string message;
  };
  virtual void begin_command(std::uint64_t number) {
    static_cast<void>(number);
  }
  // How many commands since take_notes() have kernels that could have noted something; there is room for max_notes.
  virtual std::size_t num_notes() const {
    return 0;
  }
  // What they have noted; after synchronize().
  virtual std::vector<Note> take_notes() {
    return {};
  }
  static constexpr std::size_t max_notes = 1024;

  // Asked after a failure: what has made the device useless for the rest of the process; empty where it goes on.
  virtual std::string loss() {
    return "";
  }

  // For benchmarks: commands between begin_capture() and end_capture() do not run but become one graph, which replay() runs with the
  // addresses and scalars of then. Between the two no command may wait for the device or copy to or from the host (copy_in, copy_out,
  // fences), and none may be the first of its kind: kernels are loaded, products and attention planned at their first run. Memory that
  // the commands used must stay free until the last replay.
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

 private:
  [[noreturn]] static void refuse_capture() {
    MST_FAIL("only CUDA devices capture and replay commands");
  }

  Device device_;
};

// The same object as what it is; call only where device().kind says so.
namespace cpu {
class Context;
Context& context_of(mst::Context& context);
}  // namespace cpu
namespace cuda {
class Context;
Context& context_of(mst::Context& context);
}  // namespace cuda

}  // namespace mst
