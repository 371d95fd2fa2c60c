// See queue.h.
#include "queue.h"

#include <utility>

namespace mst {

Queue::Queue(std::unique_ptr<DeviceContext> context) : context_(std::move(context)), thread_([this] { run(); }) {}

Queue::~Queue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  const auto closed = std::make_exception_ptr(Error("the device was closed before the command ran"));
  for (Entry& entry : entries_)
    if (entry.completion) entry.completion(closed);
}

void Queue::push(Command command) {
  fence(std::move(command), nullptr);
}

void Queue::fence(Command command, Completion completion) {
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back({std::move(command), std::move(completion)});
  }
  wake_.notify_one();
}

void Queue::run() {
  try {
    context_->attach_thread();
  } catch (...) {
    error_ = std::current_exception();
  }
  for (;;) {
    Entry entry;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !entries_.empty(); });
      if (stopping_) return;
      entry = std::move(entries_.front());
      entries_.pop_front();
    }
    execute(entry);
  }
}

void Queue::execute(Entry& entry) {
  try {
    if (entry.completion) {  // a command may fail on the device long after it was enqueued there
      context_->synchronize();
      context_->check_status();
    }
    if (entry.command && !error_) entry.command(*context_);
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
  if (entry.completion) entry.completion(std::exchange(error_, nullptr));
}

}  // namespace mst
