// Which thread runs next, and when those that wait may go on. Of runtime.cpp alone.
#pragma once
#include "shared_memory.h"
#include "state.h"

namespace emulator {

static void thread_main();

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
        report("a divergent barrier of the grid: at %s:%d and at %s:%d ", first.place.file, first.place.line, thread.place.file,
               thread.place.line);
        report_thread(thread);
        return true;
      }
      thread.state = State::ready;
    }
  ++launch->barriers;
  return true;
}

// A lane that the thread's exchange waits for in vain, or -1.
static int returned_lane(const Thread& thread) {
  if (thread.state == State::warp)
    for (const Thread* other : thread.block->warps[thread.warp])
      if (other->state == State::done && thread.mask >> other->lane & 1) return other->lane;
  return -1;
}

// Names a thread of each place where threads wait.
static void report_deadlock() {
  report("a deadlock:");
  std::vector<const Thread*> shown;
  for (const Block* block : launch->live)
    for (const Thread& thread : block->threads) {
      bool alike = thread.state == State::done || shown.size() == 4;
      for (const Thread* other : shown) alike |= other->state == thread.state && other->place == thread.place;
      if (alike) continue;
      report("%s ", shown.empty() ? "" : ";");
      report_thread(thread);
      report(" waits for %s at %s:%d", WAITS_FOR[static_cast<int>(thread.state)], thread.place.file, thread.place.line);
      if (returned_lane(thread) >= 0) report(", where lane %d has returned", returned_lane(thread));
      shown.push_back(&thread);
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
