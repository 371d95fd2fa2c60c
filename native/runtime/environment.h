// The open devices of one JavaScript environment (the main thread or a worker), and the promises that their queues settle.
#pragma once

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "javascript.h"
#include "queue.h"

namespace mst {

// A set of address ranges; adjacent ranges are joined.
class Ranges {
 public:
  void add(std::uintptr_t begin, std::uintptr_t end);
  void remove(std::uintptr_t begin, std::uintptr_t end);
  bool contain(std::uintptr_t begin, std::uintptr_t end) const;

 private:
  std::map<std::uintptr_t, std::uintptr_t> ends_;  // by begin
};

struct OpenDevice {
  std::size_t granularity;
  Ranges reserved, mapped;
  std::map<std::uintptr_t, std::size_t> host;  // host memory for copies beside commands: bytes by first address
  std::int64_t num_events = 0;                 // of copies beside commands
  Queue queue;                                 // last: its thread ends before the other members are destroyed

  // Whether [begin, end) lies in one block of this host memory.
  bool host_contains(std::uintptr_t begin, std::uintptr_t end) const {
    const auto next = host.upper_bound(begin);
    return next != host.begin() && begin <= end && end <= std::prev(next)->first + std::prev(next)->second;
  }

  explicit OpenDevice(std::unique_ptr<Context> context) : granularity(context->memory().granularity()), queue(std::move(context)) {}
};

// All calls must come from the environment's own thread.
class Environment {
 public:
  // Registers its clean-up hook. Throws if the environment is already ending.
  explicit Environment(napi_env env);

  std::int64_t open(std::unique_ptr<Context> context);
  // Throws if the device is not open. The caller shares its ownership: the getter of an argument may close the device meanwhile.
  std::shared_ptr<OpenDevice> find(double id) const;
  void close(std::int64_t id);
  // Ends all queues. Called at the end of the process, before exit() destroys libraries that a command may be using.
  void close_all();

  // Called on the environment's thread before a promise is settled: whether it will be fulfilled. Returns the number that it then gets.
  using Settled = std::function<double(bool is_fulfilled)>;
  // Enqueues a fence and returns the promise that it settles. Until then the event loop stays alive, and so does `kept`, whose memory the
  // command uses; `kept` may be null. Without `settled` the promise gets undefined.
  napi_value fence(Queue& queue, Queue::Command command, napi_value kept, Accesses accesses, Settled settled = nullptr);

 private:
  struct Pending;
  static void on_settled(napi_env env, napi_value, void* self, void*);
  static void on_end(void* self);
  void settle(napi_env env);
  void forget(Pending* pending);

  napi_env env_;
  // Wakes the JavaScript thread to settle promises. Any thread may call it until the environment ends; it is released after on_end().
  napi_threadsafe_function wake_ = nullptr;
  std::map<std::int64_t, std::shared_ptr<OpenDevice>> devices_;
  std::int64_t next_id_ = 1;
  std::size_t num_pending_ = 0;
  std::mutex mutex_;
  Pending* settled_ = nullptr;  // a list, newest first; guarded by mutex_
};

inline void Ranges::add(std::uintptr_t begin, std::uintptr_t end) {
  auto next = ends_.lower_bound(begin);
  if (next != ends_.begin() && std::prev(next)->second >= begin) {
    --next;
    begin = next->first;
  }
  while (next != ends_.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = ends_.erase(next);
  }
  ends_[begin] = end;
}

inline void Ranges::remove(std::uintptr_t begin, std::uintptr_t end) {
  auto range = std::prev(ends_.upper_bound(begin));  // the caller has checked contain()
  const std::uintptr_t before = range->first, after = range->second;
  ends_.erase(range);
  if (before < begin) ends_[before] = begin;
  if (end < after) ends_[end] = after;
}

inline bool Ranges::contain(std::uintptr_t begin, std::uintptr_t end) const {
  const auto next = ends_.upper_bound(begin);
  return next != ends_.begin() && begin <= end && end <= std::prev(next)->second;
}

struct Environment::Pending {
  Environment* environment = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref kept = nullptr;
  Settled settled;
  std::string error;           // empty: fulfilled
  const char* code = nullptr;  // of the error
  Pending* next = nullptr;
};

inline Environment::Environment(napi_env env) : env_(env) {
  napi_value name = nullptr;
  const bool is_made =
      napi_create_string_utf8(env, "minisequence", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, on_settled, &wake_) == napi_ok &&
      napi_unref_threadsafe_function(env, wake_) == napi_ok &&
      napi_add_env_cleanup_hook(env, on_end, this) == napi_ok;  // hooks run last in, first out: this one before wake_ is released
  MST_CHECK(is_made, "native: the environment is ending");
}

inline std::int64_t Environment::open(std::unique_ptr<Context> context) {
  devices_.emplace(next_id_, std::make_shared<OpenDevice>(std::move(context)));
  return next_id_++;
}

inline std::shared_ptr<OpenDevice> Environment::find(double id) const {
  const auto found = is_integer(id, 0, max_safe_integer) ? devices_.find(static_cast<std::int64_t>(id)) : devices_.end();
  MST_CHECK(found != devices_.end(), "native: device ", id, " is not open");
  return found->second;
}

inline void Environment::close(std::int64_t id) {
  devices_.erase(id);
}

inline void Environment::close_all() {
  devices_.clear();
}

inline napi_value Environment::fence(Queue& queue, Queue::Command command, napi_value kept, Accesses accesses, Settled settled) {
  auto pending = std::make_unique<Pending>();
  pending->environment = this;
  pending->settled = std::move(settled);
  napi_value promise = nullptr;
  MST_CHECK(!kept || napi_create_reference(env_, kept, 1, &pending->kept) == napi_ok, "native: the environment is ending");
  if (napi_create_promise(env_, &pending->deferred, &promise) != napi_ok) {
    forget(pending.release());
    MST_FAIL("native: the environment is ending");
  }
  Pending* const waiting = pending.get();
  Queue::Completion completion = [waiting](const std::exception_ptr& error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& thrown) {
      waiting->error = thrown.what();
      if (dynamic_cast<const DeviceLost*>(&thrown)) waiting->code = device_lost_code;
      if (dynamic_cast<const OutOfMemory*>(&thrown)) waiting->code = out_of_memory_code;
    }
    Environment& self = *waiting->environment;
    {
      const std::lock_guard lock(self.mutex_);
      waiting->next = std::exchange(self.settled_, waiting);
    }
    napi_call_threadsafe_function(self.wake_, nullptr, napi_tsfn_nonblocking);
  };
  queue.fence(std::move(command), std::move(completion), std::move(accesses));
  pending.release();  // settle() or on_end() deletes it
  if (num_pending_++ == 0) napi_ref_threadsafe_function(env_, wake_);
  return promise;
}

inline void Environment::on_settled(napi_env env, napi_value, void* self, void*) {
  if (env) static_cast<Environment*>(self)->settle(env);  // env is null if the environment has ended
}

// Ignores the statuses of Node-API: once JavaScript may not run any more, nobody waits for the promises.
inline void Environment::settle(napi_env env) {
  Pending* newest;
  {
    const std::lock_guard lock(mutex_);
    newest = std::exchange(settled_, nullptr);
  }
  Pending* next = nullptr;  // reversed: oldest first
  while (newest) {
    Pending* const older = newest->next;
    newest->next = std::exchange(next, newest);
    newest = older;
  }
  while (Pending* const pending = next) {
    next = pending->next;
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    const bool is_fulfilled = pending->error.empty();
    const double number = pending->settled ? pending->settled(is_fulfilled) : 0;
    if (is_fulfilled) {
      napi_value value = nullptr;
      if (!pending->settled || napi_create_double(env, number, &value) != napi_ok) napi_get_undefined(env, &value);
      napi_resolve_deferred(env, pending->deferred, value);
    } else {
      if (const napi_value error = make_error(env, napi_create_error, pending->code, pending->error.c_str()))
        napi_reject_deferred(env, pending->deferred, error);
    }
    forget(pending);
    if (--num_pending_ == 0) napi_unref_threadsafe_function(env, wake_);
    napi_close_handle_scope(env, scope);
  }
}

inline void Environment::forget(Pending* pending) {
  if (pending->kept) napi_delete_reference(env_, pending->kept);
  delete pending;
}

inline void Environment::on_end(void* self) {
  auto& environment = *static_cast<Environment*>(self);
  environment.close_all();
  while (Pending* const pending = environment.settled_) {  // no thread is left
    environment.settled_ = pending->next;
    environment.forget(pending);
  }
}

inline Environment& environment_of(const Napi::CallbackInfo& info) {
  return *info.Env().GetInstanceData<Environment>();
}

}  // namespace mst
