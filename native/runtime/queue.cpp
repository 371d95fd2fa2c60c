// See queue.h.
#include "queue.h"

#include <cstdlib>
#include <set>
#include <utility>

namespace mst {
namespace {

constexpr std::size_t max_unreported = 64;

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& thrown) {
    return thrown.what();
  } catch (...) {
    return "unknown error";
  }
}

// All queues of the process, to be stopped at its end: exit() destroys what kernels and libraries use, while a command thread may still be
// inside them. exit() runs its handlers last in, first out, and libraries register theirs when they are first used. So this handler is
// registered again after 1, 2, 4, 8, … commands. It serves exits at which Node has not already stopped the queues.
struct Running {
  std::mutex mutex;
  std::set<Queue*> queues;
};
Running& running() {
  static Running* const all = new Running;  // never destroyed
  return *all;
}
void stop_all() {
  Running& all = running();
  const std::lock_guard lock(all.mutex);
  for (Queue* queue : all.queues) queue->stop();
}
void register_stop(std::uint64_t num_commands) {
  if ((num_commands & (num_commands - 1)) == 0) std::atexit(stop_all);
}

}  // namespace

Queue::Queue(std::unique_ptr<Context> context) : context_(std::move(context)) {
  const std::lock_guard lock(running().mutex);
  const auto place = running().queues.insert(this).first;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (...) {
    running().queues.erase(place);
    throw;
  }
}

Queue::~Queue() {
  {
    const std::lock_guard lock(running().mutex);
    running().queues.erase(this);
  }
  stop();
  const auto closed = std::make_exception_ptr(Error("the device was closed before the command ran"));
  for (Entry& entry : entries_)
    if (entry.completion) entry.completion(closed);
}

void Queue::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Queue::push(Command command, Accesses accesses) {
  fence(std::move(command), nullptr, std::move(accesses));
}

void Queue::fence(Command command, Completion completion, Accesses accesses) {
  {
    const std::lock_guard lock(mutex_);
    entries_.push_back({std::move(command), std::move(completion), std::move(accesses)});
  }
  wake_.notify_one();
}

void Queue::run() {
  try {
    context_->attach_thread();
  } catch (...) {
    attach_error_ = std::current_exception();
    note_loss(attach_error_);
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
  std::exception_ptr error;
  try {
    error = process(entry);
  } catch (...) {  // no host memory is left to record what has failed
    lose("which values on the device have failed is no longer known", std::current_exception());
  }
  if (!entry.completion) return;
  const std::exception_ptr lost = loss();
  entry.completion(lost ? lost : error);
}

// Returns the error that a fence reports.
std::exception_ptr Queue::process(Entry& entry) {
  register_stop(++num_commands_);
  if (entry.completion || context_->num_notes() >= Context::max_notes) settle();
  Failure failure = run_command(entry);
  const bool is_unsettled = context_->num_notes() > 0;
  if (is_unsettled && unsettled_.empty()) before_unsettled_ = failures_;
  if (failure)
    failures_.mark(entry.accesses, failure);
  else
    failures_.heal(entry.accesses);
  if (failure && !entry.completion && entry.accesses.empty()) report_later(failure.error);
  if (is_unsettled) unsettled_.push_back({num_commands_, std::move(entry.accesses), failure});
  if (entry.completion && !failure && !unreported_.empty()) {
    failure.error = unreported_.front();
    unreported_.pop_front();
  }
  return failure.error;
}

Failure Queue::run_command(Entry& entry) {
  if (const std::exception_ptr lost = loss()) return {lost, num_commands_};
  if (attach_error_) return {attach_error_, num_commands_};
  if (const Failure failure = failures_.of(entry.accesses)) return failure;
  try {
    context_->begin_command(num_commands_);
    if (entry.command) entry.command(*context_);
    return {};
  } catch (...) {
    note_loss(std::current_exception());
    return {std::current_exception(), num_commands_};
  }
}

// Waits for the device and reads what kernels have noted there. If there are notes, the failures of all unsettled commands are computed
// anew, as if the notes had been known when each command ran.
void Queue::settle() {
  if (loss()) return;
  std::map<std::uint64_t, std::exception_ptr> late;
  try {
    context_->synchronize();
    for (const Context::Note& note : context_->take_notes()) late[note.command] = std::make_exception_ptr(Error(note.message));
  } catch (...) {  // it names no command: all of them fail
    const std::exception_ptr error = std::current_exception();
    note_loss(error);
    for (const Unsettled& command : unsettled_) late[command.number] = error;
    report_later(error);
  }
  if (!late.empty()) {
    failures_ = before_unsettled_;
    for (const auto& [number, accesses, known] : unsettled_) {
      Failure failure = failures_.of(accesses);
      if (!failure) failure = known;
      if (const auto found = late.find(number); !failure && found != late.end()) {
        failure = {found->second, number};
        if (accesses.empty()) report_later(failure.error);
      }
      if (failure)
        failures_.mark(accesses, failure);
      else
        failures_.heal(accesses);
    }
  }
  unsettled_.clear();
}

void Queue::report_later(std::exception_ptr error) {
  if (unreported_.size() < max_unreported) unreported_.push_back(std::move(error));
}

void Queue::note_loss(const std::exception_ptr& first) {
  if (const std::string why = context_->loss(); !why.empty()) lose(why, first);
}

void Queue::lose(const std::string& why, const std::exception_ptr& first) {
  const std::lock_guard lock(mutex_);
  if (loss_) return;
  loss_ = std::make_exception_ptr(
      DeviceLost(message_of(why, ". First error: ", text_of(first),
                            ". The contents of its memory are lost, and this process cannot use the device again; other devices are not "
                            "affected. Restart the process from the last checkpoint")));
}

std::exception_ptr Queue::loss() {
  const std::lock_guard lock(mutex_);
  return loss_;
}

}  // namespace mst
