// The command queue of one device: a thread that runs commands in order, so that JavaScript never waits for the device.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "context.h"
#include "failures.h"

namespace mst {

class Queue {
 public:
  using Command = std::function<void(Context&)>;
  using Completion = std::function<void(std::exception_ptr)>;

  // The thread first attaches itself to the device. If that fails, every command fails with its error.
  explicit Queue(std::unique_ptr<Context> context);
  // Waits for the running command and drops the others. Completions of dropped fences get an error.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Calls call(context) on the calling thread, for memory. Throws DeviceLost if the device is lost or turns out to be.
  template <class Call>
  auto call(const Call& call) {
    if (const std::exception_ptr lost = loss()) std::rethrow_exception(lost);
    try {
      return call(*context_);
    } catch (const OutOfMemory&) {
      throw;
    } catch (...) {
      note_loss(std::current_exception());
      if (const std::exception_ptr lost = loss()) std::rethrow_exception(lost);
      throw;
    }
  }

  // Enqueues a command. If it fails, what it writes is marked as failed. A command that reads marked bytes does not run: what it writes is
  // marked with the same error. All other commands run. The error of a command without accesses is reported by the next fence that has none
  // of its own. On a lost device nothing runs.
  void push(Command command, Accesses accesses = {});

  // Waits until all commands before it have completed on the device, runs `command` (may be empty), then calls `completion` on the command
  // thread. The completion gets the error of the bytes that the command reads, the command's own, or the unreported one of an earlier
  // command without accesses; null if there is none. Once the device is lost, every fence gets the same DeviceLost.
  void fence(Command command, Completion completion, Accesses accesses = {});

  // Ends the thread, as the destructor does. What is pushed afterwards never runs.
  void stop();

 private:
  struct Entry {
    Command command;
    Completion completion;  // empty: no fence
    Accesses accesses;
  };
  // A command whose kernels may have noted a failure on the device, or one that ran after such a command.
  struct Unsettled {
    std::uint64_t number;
    Accesses accesses;
    Failure failure;  // as known when it ran
  };
  void run();
  void execute(Entry& entry);
  std::exception_ptr process(Entry& entry);
  Failure run_command(Entry& entry);
  void settle();
  void report_later(std::exception_ptr error);
  void note_loss(const std::exception_ptr& first);  // asks the context whether it is lost, and remembers that
  void lose(const std::string& why, const std::exception_ptr& first);
  std::exception_ptr loss();

  std::unique_ptr<Context> context_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> entries_;
  bool stopping_ = false;
  std::exception_ptr loss_;  // a DeviceLost, guarded by mutex_; null: the device is not lost

  // Used by the command thread only.
  std::exception_ptr attach_error_;
  std::deque<std::exception_ptr> unreported_;  // of commands that write nothing
  std::uint64_t num_commands_ = 0;
  Failures failures_;
  std::vector<Unsettled> unsettled_;
  Failures before_unsettled_;  // failures_ before the first of unsettled_

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mst
