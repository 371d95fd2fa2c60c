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

  // The thread attaches itself to the device first; an error of that is every command's.
  explicit Queue(std::unique_ptr<Context> context);
  // Lets the running command end and drops the others; completions of dropped fences get an error.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // A memory call, on the calling thread. Throws DeviceLost where the device is lost, also where that shows only now.
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

  // A command that fails marks what it writes as failed. One that reads what is marked does not run, and hands the first error on to what
  // it writes itself; all others run. The error of a command that writes nothing is told by the next fence. On a lost device nothing runs.
  void push(Command command, Accesses accesses = {});

  // Runs `command` (may be empty) after all commands so far have completed on the device, then calls `completion` on this thread with
  // the error of what the command reads, its own or an untold one of a command that writes nothing; null where there is none. Once the
  // device is lost, every fence gets the same DeviceLost.
  void fence(Command command, Completion completion, Accesses accesses = {});

  // Ends the thread as the destructor does; what is pushed from then on never runs.
  void stop();

 private:
  struct Entry {
    Command command;
    Completion completion;  // empty: no fence
    Accesses accesses;
  };
  // A command that ran, but may have noted a failure on the device; and those after it.
  struct Unsettled {
    std::uint64_t number;
    Accesses accesses;
    Failure failure;  // known when it ran
  };
  void run();
  void execute(Entry& entry);
  std::exception_ptr process(Entry& entry);
  Failure run_command(Entry& entry);
  void settle();
  void tell_later(std::exception_ptr error);
  void note_loss(const std::exception_ptr& first);  // asks the context whether it is lost, and remembers
  void lose(const std::string& why, const std::exception_ptr& first);
  std::exception_ptr loss();

  std::unique_ptr<Context> context_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> entries_;
  bool stopping_ = false;
  std::exception_ptr loss_;  // a DeviceLost, under mutex_; null: the device is well

  // Of the command thread alone.
  std::exception_ptr attach_error_;
  std::deque<std::exception_ptr> untold_;  // of commands that write nothing
  std::uint64_t num_commands_ = 0;
  Failures failures_;
  std::vector<Unsettled> unsettled_;
  Failures before_unsettled_;  // failures_ when the first of them came

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mst
