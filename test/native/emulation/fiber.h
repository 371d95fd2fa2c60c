// A function with a stack of its own, entered and left at will on one OS thread: a thread of an emulated CUDA block.
#pragma once

#include <cstddef>

namespace emulation {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next enter() begins body(argument) on an empty stack, whatever ran here before. body must end by leave_for_good().
  void prepare(void (*body)(void*), void* argument);

  void enter();           // from outside: runs the fiber until it leaves
  void leave();           // from inside: returns to enter(); the next enter() goes on here
  void leave_for_good();  // the same, never to be entered again before prepare()

 private:
  static void start(Fiber* self);

  void* stack_ = nullptr;           // lowest address
  void* inside_pointer_ = nullptr;  // stack pointers while the other side runs
  void* outside_pointer_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  // AddressSanitizer wants to be told which stack runs.
  const void* outside_stack_ = nullptr;
  std::size_t outside_size_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace emulation
