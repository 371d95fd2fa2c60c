// See queue.h.
#include "queue.h"

#include <utility>

namespace mst {
namespace {

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& thrown) {
    return thrown.what();
  } catch (...) {
    return "unknown error";
  }
}

}  // namespace

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
    note(std::current_exception());
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
    const bool is_lost = loss() != nullptr;
    if (entry.completion && !is_lost) {  // a command may fail on the device long after it was enqueued there
      context_->synchronize();
      context_->check_status();
    }
    if (entry.command && !error_ && !is_lost) entry.command(*context_);
  } catch (...) {
    note(std::current_exception());
  }
  if (!entry.completion) return;
  const std::exception_ptr error = std::exchange(error_, nullptr), lost = loss();
  entry.completion(lost ? lost : error);
}

void Queue::note(std::exception_ptr error) {
  if (!error_) error_ = std::move(error);
  note_loss(error_);
}

void Queue::note_loss(const std::exception_ptr& first) {
  const std::string loss = context_->loss();
  if (loss.empty()) return;
  const std::lock_guard lock(mutex_);
  if (loss_) return;
  loss_ = std::make_exception_ptr(
      DeviceLost(message_of(loss, ". First error: ", text_of(first),
                            ". What was in its memory is gone, and this process cannot use it again; other devices go on. "
                            "Start the process again, from the last checkpoint")));
}

std::exception_ptr Queue::loss() {
  const std::lock_guard lock(mutex_);
  return loss_;
}

}  // namespace mst
