// Fibers: stacks that take turns on one thread of the operating system. A switch saves the registers that a called function must keep,
// changes the stack pointer, and returns into whatever the other stack was doing. The sanitizers, where they are loaded, are told.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#ifndef __x86_64__
#error "the switch of stacks below is written for x86-64"
#endif

// Present where the process was started with the runtime of a sanitizer.
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) __attribute__((weak));
void __asan_poison_memory_region(const volatile void*, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_destroy_fiber(void*) __attribute__((weak));
void __tsan_switch_to_fiber(void*, unsigned) __attribute__((weak));
void __tsan_acquire(void*) __attribute__((weak));
void __tsan_release(void*) __attribute__((weak));
__attribute__((visibility("hidden"))) void emu_switch_stack(void** save, void* next);
}

asm(R"(
.text
.hidden emu_switch_stack
.globl emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
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
.size emu_switch_stack, .-emu_switch_stack
)");

namespace emulator {

inline bool thread_sanitizer() { return __tsan_create_fiber && __tsan_switch_to_fiber; }
inline bool address_sanitizer() { return __asan_poison_memory_region && __sanitizer_start_switch_fiber && !thread_sanitizer(); }

constexpr size_t PAGE = 4096;
inline size_t stack_bytes() { return address_sanitizer() ? 1 << 18 : 1 << 16; }

struct Fiber {
  void* pointer = nullptr;  // of the stack, while another fiber runs
  char* stack = nullptr;    // its lowest byte; null for the fiber that the process started with
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* tsan = nullptr;
  void* fake_stack = nullptr;
};

// Makes the fiber call `entry` when it is first switched to. Below a stack lies a page that cannot be touched, where one that overflows
// ends. `fiber` may hold the stack of one that has ended.
inline bool start_fiber(Fiber& fiber, void (*entry)()) {
  if (!fiber.stack) {
    void* memory = mmap(nullptr, stack_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    fiber.stack = static_cast<char*>(memory);
    mprotect(fiber.stack, PAGE, PROT_NONE);
  } else if (address_sanitizer()) {
    __asan_unpoison_memory_region(fiber.stack, stack_bytes());
  }
  fiber.bottom = fiber.stack;
  fiber.bytes = stack_bytes();
  void** top = reinterpret_cast<void**>(fiber.stack + stack_bytes());
  *--top = nullptr;  // the stack pointer is 8 modulo 16 at the first instruction of a function
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the registers that the switch takes up
  fiber.pointer = top;
  if (thread_sanitizer() && !fiber.tsan) fiber.tsan = __tsan_create_fiber(0);
  return true;
}

inline void free_fiber(Fiber& fiber) {
  if (fiber.tsan) __tsan_destroy_fiber(fiber.tsan);
  if (fiber.stack) munmap(fiber.stack, stack_bytes());
  fiber = {};
}

// Leave `from` for `to`; returns when another fiber switches back. A switch alone orders no memory: that is for barriers to do.
inline void switch_fiber(Fiber& from, Fiber& to, bool forever = false) {
  if (thread_sanitizer()) __tsan_switch_to_fiber(to.tsan, 1);
  if (address_sanitizer()) __sanitizer_start_switch_fiber(forever ? nullptr : &from.fake_stack, to.bottom, to.bytes);
  emu_switch_stack(&from.pointer, to.pointer);
  if (address_sanitizer()) __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

// The first thing that a new fiber does: the address sanitizer tells it which stack it came from.
inline void begin_fiber(Fiber& came_from) {
  if (address_sanitizer()) __sanitizer_finish_switch_fiber(nullptr, &came_from.bottom, &came_from.bytes);
}

}  // namespace emulator
