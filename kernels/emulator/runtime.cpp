// The library beneath all kernels: what a thread does that waits, exchanges or fails, and how a launch begins and ends. It is compiled
// without the sanitizers that the kernels are compiled with; where memory is ordered, at barriers, it tells the thread sanitizer so.
#include "runtime.h"

#include <csignal>
#include <cstdlib>
#include <xmmintrin.h>

#include "scheduler.h"

namespace emulator {

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
  if (at >= current->fiber.stack && at < current->fiber.stack + PAGE)
    fail("the stack overflows: local arrays and calls take more than %zu bytes", stack_bytes());
  fail("a read or write at %p, where there is no memory", info->si_addr);
}

// While a kernel runs, an access to memory that does not exist ends the launch and not the process. The sanitizers have handlers of their
// own.
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

// A thread has got further: to a barrier, through an exchange, or to its end.
static void progress() { launch->sleeps = launch->accesses = 0; }

static void thread_main() {
  begin_fiber(scheduler);
  acquire(&launch->begin_order);
  launch->kernel->run(launch->arguments);
  current->state = State::done;
  record(*current, State::done, 0);
  --current->block->alive;
  --launch->alive;
  progress();
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
  progress();
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
  if (!launch->options->cooperative)
    fail("%s:%d: a barrier of the grid in a kernel that was not launched cooperatively", place.file, place.line);
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
    progress();
  }
  if (!complete || launch->drawn()) give_way();
  acquire(me.ordered_by);
  // Without memcpy, which the thread sanitizer would take for an access of the kernel's.
  for (int i = 0; i < 32; ++i) const_cast<volatile uint64_t&>(values[i]) = me.received[i];
  return me.took_part;
}

// Other threads run now, those of other blocks too.
static void rest() {
  current->slept = true;
  give_way();
}

void sleep() {
  if (++launch->sleeps > 5'000'000 + 1'000ull * launch->threads)
    fail("a livelock: threads sleep and wake, and wait for what no other thread will do");
  rest();
}

void maybe_yield() {
  if (++launch->accesses > 1ull << 28)
    fail("a livelock: threads read or change the same memory again and again, and no thread gets further");
  if (launch->drawn() ? draw() % 2 : draw() % 64 == 0) rest();
}

void fence() {
  static char order;
  release(&order);
  acquire(&order);
  maybe_yield();
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
