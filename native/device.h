// What a device offers beside kernels: memory, copies, and the state that its command thread runs kernels in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor.h"

namespace mst {

// Thrown by DeviceMemory-mapping calls when the device has no memory left; the device stays usable.
struct OutOfMemory : Error {
  using Error::Error;
};

// Thrown by everything on a device that an error has made useless for the rest of the process.
struct DeviceLost : Error {
  using Error::Error;
};

// Memory calls may come from any thread; the others from the command thread alone, in the order of commands.
class DeviceContext {
 public:
  virtual ~DeviceContext() = default;

  virtual std::size_t granularity() const = 0;             // of map and unmap, in bytes
  virtual char* reserve(std::size_t bytes) = 0;            // addresses without memory; released with the context
  virtual void map(char* begin, std::size_t bytes) = 0;    // puts zeroed (cpu) or undefined (cuda) memory behind reserved addresses
  virtual void unmap(char* begin, std::size_t bytes) = 0;  // after the commands that use it have run
  virtual std::size_t available_bytes() const = 0;         // what map could still give

  // Why products run by the package's own kernels; empty where they do not.
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
  virtual void synchronize() = 0;  // waits until every command so far has run

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

  // Asked after a failure, on any thread: what has made the device useless for the rest of the process; empty where it goes on.
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

 private:
  [[noreturn]] static void refuse_capture() {
    MST_FAIL("only CUDA devices capture and replay commands");
  }
};

std::unique_ptr<DeviceContext> open_cpu(int num_threads);
struct CudaOptions {
  std::string attention;         // "own", "cudnn" or "auto": cuDNN where it is found and faster
  std::string products;          // "own", or "auto": cuBLASLt's where it is found
  std::string tuning_directory;  // for the timed choices of products; empty: nothing is timed
};
// Error with cause and remedy where there is no such device, or no cuDNN where it was asked for.
std::unique_ptr<DeviceContext> open_cuda(int index, const CudaOptions& options);

struct CudaDevice {
  int index;
  std::string name;
  int major, minor, num_multiprocessors;
  std::size_t total_bytes, free_bytes;
  std::string problem;  // why it cannot be used; empty where it can
};

// For `doctor`, never throws. problem: why cuda:0 cannot be used, empty where it can.
struct CudaReport {
  bool built;                           // with nvcc
  std::string architectures;            // that device code was compiled for
  int runtime_version, driver_version;  // 13000 = 13.0; 0 where unknown
  std::string cublaslt_path;            // where it was found; empty where it was not
  std::size_t cublaslt_version;
  std::vector<std::string> cublaslt_tried;
  std::string cublaslt_problem;  // why it is not used; empty where it is
  std::string cudnn_path;        // empty where it was not found
  std::size_t cudnn_version;
  std::string cudnn_problem;  // why it is not used; empty where it can be
  std::string problem;
  std::vector<CudaDevice> devices;
};
CudaReport describe_cuda();

// Directories to search for CUDA libraries before all others. Call before the first product.
void set_cuda_library_path(std::vector<std::string> directories);

}  // namespace mst
