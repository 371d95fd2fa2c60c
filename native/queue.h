// The command queue of one device: a thread that runs commands in order, so that JavaScript never waits for the device.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "device.h"

namespace mst {

class Queue {
 public:
  using Command = std::function<void(DeviceContext&)>;
  using Completion = std::function<void(std::exception_ptr)>;

  // The thread attaches itself to the device first; an error of that shows at the first fence.
  explicit Queue(std::unique_ptr<DeviceContext> context);
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

  // After a command has failed, the following ones are skipped until a fence has reported the error. On a lost device that is for good.
  void push(Command command);

  // Runs `command` (may be empty) after all commands so far have completed on the device, then calls `completion` on this thread with
  // the first error since the last fence, or null. The error is thereby reported, and the queue takes commands again. Once the device is
  // lost, every fence gets the same DeviceLost.
  void fence(Command command, Completion completion);

 private:
  struct Entry {
    Command command;
    Completion completion;  // empty: no fence
  };
  void run();
  void execute(Entry& entry);
  void note(std::exception_ptr error);              // on the command thread
  void note_loss(const std::exception_ptr& first);  // asks the context whether it is lost, and remembers
  std::exception_ptr loss();

  std::unique_ptr<DeviceContext> context_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> entries_;
  bool stopping_ = false;
  std::exception_ptr loss_;   // a DeviceLost, under mutex_; null: the device is well
  std::exception_ptr error_;  // of the command thread alone
  std::thread thread_;        // last: it uses all of the above
};

}  // namespace mst
