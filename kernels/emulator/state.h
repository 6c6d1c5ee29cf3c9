// What is known of a launch while it runs: its blocks, their threads, and who waits for whom. Of runtime.cpp alone.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <vector>

#include "fiber.h"
#include "runtime.h"

namespace emulator {

constexpr size_t ZONE = 256;                  // bytes between shared arrays: NaN, and poisoned for the address sanitizer
constexpr size_t STATIC_SHARED = 48 * 1024;   // the most that a block declares
constexpr size_t MOST_ARRAYS = 64;
constexpr size_t EVENTS = 1 << 18;            // the most that a trace keeps

enum class State : uint8_t { ready, block, grid, warp, done };  // what a thread waits for
constexpr const char* WAITS_FOR[] = {"nothing", "its block", "the grid", "its warp", "nothing"};

struct Block;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  uint3 index{};
  int lane = 0;
  unsigned warp = 0;
  State state = State::ready;
  Place place{"", 0};  // where it waits
  bool slept = false;  // it gave way without waiting for anything in particular
  bool vote = false;
  uint32_t mask = 0;  // of the exchange with its warp: who takes part, what it gives, what it got
  uint64_t value = 0;
  uint64_t received[32];
  uint32_t took_part = 0;
  // The thread sanitizer orders by addresses. There are two, for a lane may be at the next exchange before another has left this one.
  char order[2];
  unsigned exchanges = 0;
  void* ordered_by = nullptr;
};

struct SharedMemory {
  const SharedArray* declared;
  size_t begin, bytes;
};

struct Block {
  uint3 index{};
  std::vector<Thread> threads;
  std::vector<std::vector<Thread*>> warps;
  char* arena = nullptr;  // its shared memory: the declared arrays, and at the end the dynamic one
  SharedMemory arrays[MOST_ARRAYS];
  size_t array_count = 0, used = 0, declared_bytes = 0;
  unsigned alive = 0, barriers = 0;
  int votes[3] = {};  // count, all, any
  char order[2];
};

// One line of a trace. Python reads them as they lie here.
struct Event {
  uint32_t block, thread;
  int32_t line;
  uint32_t what;  // a State: what it waits for from here on; ready where it starts
};

struct Options {
  uint64_t seed;
  uint64_t dynamic_shared, most_shared;
  int32_t cooperative, flush;
  Event* events;  // room for EVENTS of them, or null
  uint64_t event_count;
};

struct Launch {
  const Kernel* kernel;
  void** arguments;
  Options* options;
  uint64_t random;
  size_t arena_bytes = 0;
  std::vector<std::unique_ptr<Block>> blocks;  // all that were started
  std::vector<Block*> live;
  std::vector<Fiber> ended;  // for the thread sanitizer
  unsigned threads = 0, alive = 0, barriers = 0;
  uint64_t sleeps = 0, accesses = 0;  // since a thread last got further: __nanosleep(), and atomics, fences and loads with __ldcg()
  char begin_order, grid_order[2], end_order;
  bool failed = false;
  char message[1024] = "";

  bool drawn() const { return options->seed >= 2; }
};

uint3 thread_index, block_index;
dim3 block_size, grid_size;

static Launch* launch;
static Thread* current;
static Fiber scheduler;  // where the process came from

// Fibers whose thread has returned, for other threads. To the thread sanitizer a fiber is one thread of a launch, or what one thread did
// on it would come before what the next does; but making one is slow, so the next launch may have it.
static std::vector<Fiber> free_fibers;
constexpr size_t MOST_FREE = 2048;

// Random numbers: xorshift, so that a seed means the same schedule everywhere.
static uint64_t draw() {
  uint64_t& x = launch->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}
template <class T> static void arrange(std::vector<T>& items) {
  if (launch->options->seed == 1)
    for (size_t i = 0; i < items.size() / 2; ++i) std::swap(items[i], items[items.size() - 1 - i]);
  if (launch->drawn())
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[draw() % i]);
}

static void release(void* order) {
  if (thread_sanitizer()) __tsan_release(order);
}
static void acquire(void* order) {
  if (thread_sanitizer()) __tsan_acquire(order);
}

static unsigned linear(uint3 index, dim3 size) { return index.x + size.x * (index.y + size.y * index.z); }

static void record(const Thread& thread, State what, int line) {
  Options& options = *launch->options;
  if (!options.events || options.event_count == EVENTS) return;
  const unsigned block = linear(thread.block->index, grid_size), index = linear(thread.index, block_size);
  options.events[options.event_count++] = {block, index, line, static_cast<uint32_t>(what)};
}

// Errors

static void append(const char* format, va_list arguments) {
  const size_t length = strlen(launch->message);
  vsnprintf(launch->message + length, sizeof launch->message - length, format, arguments);
}
__attribute__((format(printf, 1, 2))) static void report(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  append(format, arguments);
  va_end(arguments);
  launch->failed = true;
}
static void report_thread(const Thread& thread) {
  const uint3 b = thread.block->index, t = thread.index;
  report("block (%u, %u, %u) thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
}

}  // namespace emulator
