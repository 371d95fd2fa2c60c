// See fiber.h. System V x86-64 only.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// switch_stack(void** save, void* load): keeps the callee-saved registers on the stack that is left, notes its pointer in *save, and
// continues on the stack whose pointer is `load`, where a switch_stack was interrupted or a start was laid out.
extern "C" void emulation_switch_stack(void** save, void* load);
asm(R"(
.text
.globl emulation_switch_stack
.type emulation_switch_stack, @function
emulation_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.globl emulation_fiber_entry
.type emulation_fiber_entry, @function
emulation_fiber_entry:  // rbx: the function, rbp: its argument; the stack is aligned here
  mov %rbp, %rdi
  call *%rbx
  ud2
.section .note.GNU-stack,"",@progbits
.text
)");
extern "C" void emulation_fiber_entry();

namespace emulation {
namespace {

constexpr std::size_t stack_size = 128 << 10, guard_size = 4 << 10;

}  // namespace

Fiber::Fiber() {
  stack_ = mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, guard_size, PROT_NONE);  // an overflow faults
}

Fiber::~Fiber() {
  munmap(stack_, stack_size);
}

void Fiber::prepare(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  fake_stack_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(static_cast<char*>(stack_) + guard_size, stack_size - guard_size);  // frames that were abandoned
#endif
  const std::uintptr_t frame[] = {0,
                                  0,
                                  0,
                                  0,
                                  reinterpret_cast<std::uintptr_t>(&Fiber::start),
                                  reinterpret_cast<std::uintptr_t>(this),
                                  reinterpret_cast<std::uintptr_t>(&emulation_fiber_entry)};  // r15 r14 r13 r12 rbx rbp, return address
  // After the return address has been popped, the stack pointer is a multiple of 16, as a call expects it.
  auto* const pointer = reinterpret_cast<std::uintptr_t*>(static_cast<char*>(stack_) + stack_size - 16) - 7;
  for (int i = 0; i < 7; ++i) pointer[i] = frame[i];
  inside_pointer_ = pointer;
}

void Fiber::enter() {
#if defined(__SANITIZE_ADDRESS__)
  void* my_fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&my_fake_stack, stack_, stack_size);
#endif
  emulation_switch_stack(&outside_pointer_, inside_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(my_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::start(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self->outside_stack_, &self->outside_size_);
#endif
  self->body_(self->argument_);
}

void Fiber::leave() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, outside_stack_, outside_size_);
#endif
  emulation_switch_stack(&inside_pointer_, outside_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &outside_stack_, &outside_size_);
#endif
}

void Fiber::leave_for_good() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, outside_stack_, outside_size_);  // null: the fake stack goes
#endif
  emulation_switch_stack(&inside_pointer_, outside_pointer_);
}

}  // namespace emulation
