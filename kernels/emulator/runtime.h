// What cuda_on_cpu.h asks of runtime.cpp. Kernels see the names of CUDA; these are behind them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

namespace emulator {

// A line of the kernel. As the default of a last argument it is the line of the call.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Place& other) const { return line == other.line && file == other.file; }
};

#pragma GCC visibility push(default)  // what kernels link with

// The thread that runs now, and the geometry of its launch.
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;
int lane();
uint32_t running_lanes();  // those of this warp that have not returned

enum class Vote { count, all, any };
void block_barrier(Place place);
int block_vote(bool vote, Vote kind, Place place);
void grid_barrier(Place place);

// Every lane in `mask` gives a value and receives those of all others. Returns the lanes that took part.
uint32_t exchange(uint32_t mask, uint64_t value, uint64_t (&values)[32], Place place);

void fence();        // orders memory for the thread sanitizer, and may let other threads run
void sleep();        // lets other threads run
void maybe_yield();  // a point at which, on a GPU, other threads are likely to run

// The launch ends here, with a message that Python raises.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The declaration of a __shared__ array; each block has memory of its own for it.
struct SharedArray {
  const char* name;
  Place place;
};
void* shared_array(const SharedArray& declared, size_t bytes, size_t alignment);
void* dynamic_shared();

#pragma GCC visibility pop

template <class T> uint64_t to_word(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a warp exchanges values of at most 8 bytes");
  uint64_t word = 0;
  memcpy(&word, &value, sizeof value);
  return word;
}
template <class T> T from_word(uint64_t word) {
  T value;
  memcpy(&value, &word, sizeof value);
  return value;
}

// How Python calls a kernel, and what it checks its arguments against; see kernel_table.h.
struct Kernel {
  void (*run)(void** arguments);
  const char* types;     // a letter for each parameter, those of NumPy's dtypes; P for a pointer
  const char* elements;  // for each pointer, the letter of what it points to; v for void, S for a struct
  int bound;             // threads to a block, from __launch_bounds__; 0 where there are none
};

}  // namespace emulator
