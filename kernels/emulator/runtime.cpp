// Runs a grid: which thread is next, who waits for whom, and what may not happen. Compiled without the sanitizers that the kernels are compiled
// with; where memory is ordered, at barriers, it tells the thread sanitizer so.
#include "runtime.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>
#include <xmmintrin.h>

#include "fiber.h"

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
  char order[2];  // the thread sanitizer orders by addresses; two in turn, for one lane may be at the next exchange before another has left this
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
  uint64_t idle = 0;  // how often in a row a thread gave way and nothing happened
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

// Fibers whose thread has returned, for other threads. To the thread sanitizer a fiber is one thread of a launch, or what one thread did on it
// would come before what the next does; but making one takes half a millisecond, so the next launch may have it.
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
  if (options.events && options.event_count < EVENTS)
    options.events[options.event_count++] = {linear(thread.block->index, grid_size), linear(thread.index, block_size), line, uint32_t(what)};
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

static void give_way(bool forever = false) { switch_fiber(current->fiber, scheduler, forever); }

void fail(const char* format, ...) {
  if (!launch->failed) {
    va_list arguments;
    va_start(arguments, format);
    append(format, arguments);
    va_end(arguments);
    report(", in ");
    report_thread(*current);
  }
  for (;;) give_way();  // never taken up again: the launch is abandoned
}

static void on_signal(int signal, siginfo_t* info, void*) {
  if (!current) abort();
  if (signal == SIGFPE) fail("a division of an integer by zero");
  const char* at = static_cast<const char*>(info->si_addr);
  if (at >= current->fiber.stack && at < current->fiber.stack + PAGE) fail("the stack overflows: local arrays and calls take more than %zu bytes", stack_bytes());
  fail("a read or write at %p, where there is no memory", info->si_addr);
}

// While a kernel runs, an access to memory that does not exist ends the launch and not the process. The sanitizers have handlers of their own.
class Signals {
 public:
  Signals() {
    if (thread_sanitizer() || address_sanitizer()) return;
    stack_t alternative{};
    alternative.ss_sp = stack_;
    alternative.ss_size = sizeof stack_;
    sigaltstack(&alternative, &stack_before_);
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; ++i) sigaction(NUMBERS[i], &action, &before_[i]);
    installed_ = true;
  }
  ~Signals() {
    if (!installed_) return;
    for (int i = 0; i < 3; ++i) sigaction(NUMBERS[i], &before_[i], nullptr);
    sigaltstack(&stack_before_, nullptr);
  }

 private:
  static constexpr int NUMBERS[] = {SIGSEGV, SIGBUS, SIGFPE};
  struct sigaction before_[3];
  stack_t stack_before_{};
  bool installed_ = false;
  alignas(16) char stack_[1 << 16];
};

// What a thread does

static void thread_main() {
  begin_fiber(scheduler);
  acquire(&launch->begin_order);
  launch->kernel->run(launch->arguments);
  current->state = State::done;
  record(*current, State::done, 0);
  --current->block->alive;
  --launch->alive;
  launch->idle = 0;
  release(&launch->end_order);
  give_way(true);
  abort();
}

int lane() { return current->lane; }

uint32_t running_lanes() {
  uint32_t lanes = 0;
  for (const Thread* thread : current->block->warps[current->warp])
    if (thread->state != State::done) lanes |= 1u << thread->lane;
  return lanes;
}

static void wait(State what, Place place, void* order) {
  current->state = what;
  current->place = place;
  launch->idle = 0;
  record(*current, what, place.line);
  release(order);
  give_way();
  acquire(order);
}

void block_barrier(Place place) { wait(State::block, place, &current->block->order[current->block->barriers & 1]); }

int block_vote(bool vote, Vote kind, Place place) {
  current->vote = vote;
  Block* block = current->block;
  block_barrier(place);
  return block->votes[static_cast<int>(kind)];
}

void grid_barrier(Place place) {
  if (!launch->options->cooperative) fail("%s:%d: a barrier of the grid in a kernel that was not launched cooperatively", place.file, place.line);
  wait(State::grid, place, &launch->grid_order[launch->barriers & 1]);
}

// Whether the lane waits in the same exchange as the current one.
static bool exchanges_with_current(const Thread& other) {
  return other.state == State::warp && other.mask == current->mask && other.place == current->place;
}

uint32_t exchange(uint32_t mask, uint64_t value, uint64_t (&values)[32], Place place) {
  Thread& me = *current;
  const std::vector<Thread*>& warp = me.block->warps[me.warp];
  if (!(mask >> me.lane & 1)) fail("%s:%d: lane %d is not in the mask %#x that it gives", place.file, place.line, me.lane, mask);
  me.state = State::warp;
  me.mask = mask;
  me.value = value;
  me.place = place;
  me.ordered_by = &me.order[me.exchanges++ & 1];
  bool complete = true;
  uint32_t here = 0;
  for (Thread* other : warp) {
    if (!(mask >> other->lane & 1)) continue;
    if (other->state == State::done)
      fail("%s:%d: lane %d has returned, and is in the mask %#x of those that exchange here", place.file, place.line, other->lane, mask);
    if (!exchanges_with_current(*other)) {
      complete = false;
      continue;
    }
    here |= 1u << other->lane;
    if (other != &me) me.ordered_by = other->ordered_by;
  }
  record(me, State::warp, place.line);
  release(me.ordered_by);
  if (complete) {
    for (Thread* receiver : warp) {
      if (!(mask >> receiver->lane & 1)) continue;
      for (const Thread* giver : warp)
        if (mask >> giver->lane & 1) receiver->received[giver->lane] = giver->value;
      receiver->took_part = here;
      receiver->state = State::ready;
    }
    launch->idle = 0;
  }
  if (!complete || launch->drawn()) give_way();
  acquire(me.ordered_by);
  // Without memcpy, which the thread sanitizer would take for an access of the kernel's.
  for (int i = 0; i < 32; ++i) const_cast<volatile uint64_t&>(values[i]) = me.received[i];
  return me.took_part;
}

static void rest() {
  current->slept = true;
  ++launch->idle;
  give_way();
}

void sleep() {
  if (launch->idle > 20'000 + 200ull * launch->threads) fail("a livelock: threads sleep and wake, and wait for what no other thread will do");
  rest();
}

void maybe_yield() {
  if (launch->drawn() ? draw() % 2 : draw() % 64 == 0) rest();
}

void fence() {
  static char order;
  release(&order);
  acquire(&order);
  maybe_yield();
}

// Shared memory of a block: [zone, array, zone, array, .. zone, dynamic array, zone]. All of it starts as 0xFF, which is NaN in any precision.

static char* dynamic_begin(const Block& block) {
  return block.arena + launch->arena_bytes - ZONE - (launch->options->dynamic_shared + 15) / 16 * 16;
}

void* dynamic_shared() { return dynamic_begin(*current->block); }

void* shared_array(const SharedArray& declared, size_t bytes, size_t alignment) {
  Block& block = *current->block;
  for (size_t i = 0; i < block.array_count; ++i)
    if (block.arrays[i].declared == &declared) return block.arena + block.arrays[i].begin;
  block.declared_bytes = (block.declared_bytes + alignment - 1) / alignment * alignment + bytes;
  if (block.declared_bytes > STATIC_SHARED || block.array_count == MOST_ARRAYS)
    fail("%s:%d: with %s a block declares %zu bytes of shared memory, at most %zu may be declared", declared.place.file, declared.place.line,
         declared.name, block.declared_bytes, STATIC_SHARED);
  if (block.declared_bytes + launch->options->dynamic_shared > launch->options->most_shared)
    fail("a block takes %zu bytes of shared memory, declared and dynamic, this device has %zu", block.declared_bytes + launch->options->dynamic_shared,
         size_t(launch->options->most_shared));
  const size_t aligned = alignment < 16 ? 16 : alignment, begin = (block.used + ZONE + aligned - 1) / aligned * aligned;
  block.used = begin + bytes;
  block.arrays[block.array_count++] = {&declared, begin, bytes};
  if (address_sanitizer()) __asan_unpoison_memory_region(block.arena + begin, bytes);
  return block.arena + begin;
}

static bool all_ones(const char* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    if (begin[i] != char(0xFF)) return false;
  return true;
}

static void check_zones(const Block& block) {
  if (address_sanitizer()) return;  // it saw every access
  const size_t near = ZONE - 16;    // an alignment of at most 16 bytes may begin an array later
  for (size_t i = 0; i < block.array_count && !launch->failed; ++i) {
    const SharedMemory& array = block.arrays[i];
    if (!all_ones(block.arena + array.begin - near, near) || !all_ones(block.arena + array.begin + array.bytes, near))
      report("a write outside of __shared__ %s (%s:%d) in block (%u, %u, %u)", array.declared->name, array.declared->place.file,
             array.declared->place.line, block.index.x, block.index.y, block.index.z);
  }
  const char* dynamic = dynamic_begin(block);
  const size_t bytes = launch->options->dynamic_shared;
  if (!launch->failed && (!all_ones(dynamic - near, near) || !all_ones(dynamic + bytes, near)))
    report("a write outside of the %zu bytes of dynamic shared memory in block (%u, %u, %u)", bytes, block.index.x, block.index.y, block.index.z);
}

// The scheduler

static void resume(Thread& thread) {
  if (!thread.fiber.stack) {
    if (!free_fibers.empty()) {
      thread.fiber = free_fibers.back();
      free_fibers.pop_back();
    }
    if (!start_fiber(thread.fiber, thread_main)) return report("there is no memory for the stack of another thread");
    record(thread, State::ready, 0);
  }
  current = &thread;
  thread_index = thread.index;
  block_index = thread.block->index;
  switch_fiber(scheduler, thread.fiber);
  current = nullptr;
  if (thread.state == State::done) {
    (thread_sanitizer() ? launch->ended : free_fibers).push_back(thread.fiber);
    thread.fiber = {};
    if (launch->ended.size() > MOST_FREE) free_fiber(launch->ended.back());
  }
}

static std::unique_ptr<Block> make_block(uint3 index) {
  auto block = std::make_unique<Block>();
  const unsigned count = block_size.x * block_size.y * block_size.z;
  block->index = index;
  block->threads.resize(count);
  block->warps.resize((count + 31) / 32);
  block->alive = count;
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = block->threads[i];
    thread.block = block.get();
    thread.index = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
    thread.lane = i % 32;
    thread.warp = i / 32;
    block->warps[thread.warp].push_back(&thread);
  }
  block->arena = static_cast<char*>(aligned_alloc(128, launch->arena_bytes));
  memset(block->arena, 0xFF, launch->arena_bytes);
  if (address_sanitizer()) {
    __asan_poison_memory_region(block->arena, launch->arena_bytes);
    __asan_unpoison_memory_region(dynamic_begin(*block), launch->options->dynamic_shared);
  }
  release(&launch->begin_order);
  return block;
}

// Lets the threads of a block pass a barrier, once all of them are there.
static bool pass_barrier(Block& block) {
  unsigned waiting = 0;
  int votes = 0;
  const Thread* first = nullptr;
  for (const Thread& thread : block.threads) {
    if (thread.state != State::block) continue;
    if (!first) first = &thread;
    ++waiting;
    votes += thread.vote;
  }
  if (!waiting || waiting < block.alive) return false;
  if (block.alive < block.threads.size()) {
    report("%s:%d: __syncthreads() although %zu threads of the block have returned, in ", first->place.file, first->place.line,
           block.threads.size() - block.alive);
    report_thread(*first);
    return true;
  }
  for (const Thread& thread : block.threads)
    if (!(thread.place == first->place)) {
      report("a divergent __syncthreads(): at %s:%d ", first->place.file, first->place.line);
      report_thread(*first);
      report(", at %s:%d ", thread.place.file, thread.place.line);
      report_thread(thread);
      return true;
    }
  block.votes[0] = votes;
  block.votes[1] = votes == static_cast<int>(block.threads.size());
  block.votes[2] = votes > 0;
  for (Thread& thread : block.threads) thread.state = State::ready;
  ++block.barriers;
  return true;
}

// Runs the threads of a block until all of them wait, or until it is another block's turn. Returns whether anything happened.
static bool run_block(Block& block) {
  bool any = false;
  std::vector<Thread*> ready;
  for (;;) {
    ready.clear();
    for (Thread& thread : block.threads)
      if (thread.state == State::ready) ready.push_back(&thread);
    if (ready.empty()) break;
    any = true;
    arrange(ready);
    bool slept = false;
    for (Thread* thread : ready) {
      thread->slept = false;
      resume(*thread);
      slept |= thread->slept;
      if (launch->failed) return true;
    }
    if (slept || (launch->drawn() && draw() % 8 == 0)) return true;
  }
  return block.alive ? pass_barrier(block) || any : any;
}

// Lets all threads pass a barrier of the grid, once they are there.
static bool pass_grid_barrier() {
  const Thread& first = launch->live[0]->threads[0];
  for (const Block* block : launch->live)
    for (const Thread& thread : block->threads)
      if (thread.state != State::grid && thread.state != State::done) return false;
  if (launch->alive < launch->threads) {
    report("a barrier of the grid although %u of its threads have returned", launch->threads - launch->alive);
    return true;
  }
  for (Block* block : launch->live)
    for (Thread& thread : block->threads) {
      if (!(thread.place == first.place)) {
        report("a divergent barrier of the grid: at %s:%d and at %s:%d ", first.place.file, first.place.line, thread.place.file, thread.place.line);
        report_thread(thread);
        return true;
      }
      thread.state = State::ready;
    }
  ++launch->barriers;
  return true;
}

static void report_deadlock() {
  report("a deadlock:");
  int shown = 0;
  for (const Block* block : launch->live) {
    const Thread* before = nullptr;
    for (const Thread& thread : block->threads) {
      const bool alike = before && before->state == thread.state && before->place == thread.place;
      before = &thread;
      if (thread.state == State::done || alike || shown == 4) continue;
      report("%s ", shown++ ? ";" : "");
      report_thread(thread);
      report(" waits for %s at %s:%d", WAITS_FOR[static_cast<int>(thread.state)], thread.place.file, thread.place.line);
    }
  }
}

static void finish_block(size_t i) {
  Block& block = *launch->live[i];
  launch->live.erase(launch->live.begin() + static_cast<std::ptrdiff_t>(i));
  if (launch->failed) return;
  check_zones(block);
  if (thread_sanitizer()) return;  // its memory must not be given out again while the sanitizer remembers who wrote to it
  free(block.arena);
  block.arena = nullptr;
  block.threads = {};
  block.warps = {};
}

// Blocks run ahead of each other by as much as the barriers allow.
static bool run_live_blocks() {
  bool any = false;
  arrange(launch->live);
  for (size_t i = 0; i < launch->live.size() && !launch->failed;) {
    Block& block = *launch->live[i];
    bool happened;
    do {
      happened = run_block(block);
      any |= happened;
    } while (happened && !launch->failed && block.alive && launch->drawn() && draw() % 4);
    if (block.alive || launch->failed)
      ++i;
    else
      finish_block(i);
  }
  return any;
}

static void run_grid() {
  const size_t count = size_t(grid_size.x) * grid_size.y * grid_size.z;
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = i;
  arrange(order);
  // All blocks of a cooperative grid run at the same time; of any other, as few as a kernel may count on.
  const size_t at_once = launch->options->cooperative ? count : launch->drawn() ? 1 + draw() % 4 : 1;
  for (size_t next = 0; (next < count || !launch->live.empty()) && !launch->failed;) {
    for (; launch->live.size() < at_once && next < count; ++next) {
      const unsigned i = static_cast<unsigned>(order[next]);
      launch->blocks.push_back(make_block({i % grid_size.x, i / grid_size.x % grid_size.y, i / grid_size.x / grid_size.y}));
      launch->live.push_back(launch->blocks.back().get());
    }
    bool any = run_live_blocks();
    if (!launch->failed && launch->options->cooperative && launch->alive) any |= pass_grid_barrier();
    if (!launch->failed && !any) report_deadlock();
  }
}

static void clean_up(Launch& launch) {
  for (const std::unique_ptr<Block>& block : launch.blocks) {
    for (Thread& thread : block->threads) free_fiber(thread.fiber);  // of a launch that was abandoned
    free(block->arena);
  }
  for (Fiber& fiber : launch.ended)
    if (fiber.stack) free_fibers.push_back(fiber);
}

}  // namespace emulator

// Runs a grid of sizes[0..2] blocks of sizes[3..5] threads. Returns 0, or 1 with the reason in `message`.
extern "C" __attribute__((visibility("default"))) int emu_launch(const emulator::Kernel* kernel, void** arguments, const unsigned* sizes,
                                                                 emulator::Options* options, char* message, size_t message_bytes) {
  using namespace emulator;
  Launch running{};
  launch = &running;
  running.kernel = kernel;
  running.arguments = arguments;
  running.options = options;
  running.random = options->seed * 0x9E3779B97F4A7C15ull | 1;
  for (int i = 0; i < 4; ++i) draw();
  grid_size = dim3(sizes[0], sizes[1], sizes[2]);
  block_size = dim3(sizes[3], sizes[4], sizes[5]);
  running.threads = running.alive = sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[4] * sizes[5];
  running.arena_bytes = (STATIC_SHARED + (MOST_ARRAYS + 2) * (ZONE + 128) + options->dynamic_shared + 127) / 128 * 128;
  if (thread_sanitizer()) scheduler.tsan = __tsan_get_current_fiber();
  release(&running.begin_order);
  const unsigned control = _mm_getcsr();
  if (options->flush) _mm_setcsr(control | 0x8040);  // subnormal operands and results are zero
  {
    Signals signals;
    run_grid();
  }
  _mm_setcsr(control);
  acquire(&running.end_order);
  if (running.failed) snprintf(message, message_bytes, "%s", running.message);
  clean_up(running);
  launch = nullptr;
  return running.failed;
}
