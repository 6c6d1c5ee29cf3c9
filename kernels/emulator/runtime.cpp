// runtime.cpp - runtime of the CPU emulation: fibers, random scheduler, barriers, checks.  Compiled WITHOUT sanitizer
// instrumentation (the kernels are instrumented), but it tells ASan/TSan about fiber switches and barriers.
#include "cuda_on_cpu.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <sys/mman.h>
#include <xmmintrin.h>
#ifndef __x86_64__
#error "add a context switch for this CPU"
#endif
extern "C" {   // weak: present only when the process runs with the sanitizer's runtime
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
void emu_switch(void** save, void* to);
}
asm(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emu_switch,.-emu_switch\n");

namespace emulator {
enum State : uint8_t { READY, W_BLOCK = BAR_BLOCK, W_GRID = BAR_GRID, W_WARP = BAR_WARP, DONE };
struct Block;
struct Thread {
  void* sp = nullptr; char* stack = nullptr; void* tsan = nullptr; void* fake = nullptr;
  Block* blk; uint3 tid; int lane, line = 0, vote = 0; unsigned warp; State st = READY;
  uint32_t mask = 0; uint64_t val = 0, got[32]; uint32_t here = 0; char obj[2]; unsigned warp_ops = 0; void* grp = nullptr;
};
struct Warp { std::vector<Thread*> t; };
struct Shared { const char* name; int line; char* p; size_t bytes; };
struct Block { uint3 bid; std::vector<Thread> t; std::vector<Warp> w; Shared sh[64]; int nsh = 0; char* arena = nullptr; size_t used = 0; int vote_result[3]; unsigned alive = 0, epoch = 0; char obj[2]; };
struct Fiber { char* stack; void* tsan; };
struct Launch {
  const Kernel* k; void** args; size_t dyn, arena; int coop; uint64_t rng; int order; std::vector<Block*> blocks; std::vector<Fiber> used;
  unsigned nthreads, nlive, epoch = 0; char tsan_start, tsan_grid[2], tsan_end; bool failed = false; char err[1024] = ""; uint64_t steps = 0;
};
static Launch* L; static Thread* cur; static void* main_sp; static void* main_tsan; static void* main_fake; static const void* main_bottom; static size_t main_size;
static size_t STACK = 1 << 16; static std::vector<char*> pool; static bool tsan, asan;
// For TSan a fiber serves one thread of a launch, or that thread's accesses would come before those of the next. Making one takes half a
// millisecond, so launches pass them on, as many as some GB of its memory can hold.
static std::vector<Fiber> fibers; static const size_t FIBERS = 2048;
extern "C" { uint3 emu_tid, emu_bid; Dims emu_dims; uint64_t emu_steps; }

static uint64_t rnd() { uint64_t& x = L->rng; x ^= x << 13; x ^= x >> 7; x ^= x << 17; return x; }
static void order(std::vector<Thread*>& v) {
  if (L->order == 1) for (size_t i = 0, n = v.size(); i < n / 2; ++i) std::swap(v[i], v[n - 1 - i]);
  if (L->order >= 2) for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[rnd() % i]);
}
static void* clean_copy(void* d, const void* s, size_t n) { for (size_t i = 0; i < n; ++i) { ((char*)d)[i] = ((const char*)s)[i]; asm volatile("" ::: "memory"); } return d; }

static void to_main() {
  Thread* me = cur;
  if (tsan) { __tsan_release(&L->tsan_end); __tsan_switch_to_fiber(main_tsan, 1); }   // 1: a switch orders nothing
  if (asan) __sanitizer_start_switch_fiber(me->st == DONE ? nullptr : &me->fake, main_bottom, main_size);
  emu_switch(&me->sp, main_sp);
  if (asan) __sanitizer_finish_switch_fiber(me->fake, &main_bottom, &main_size);
}
static void entry() {
  if (asan) __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
  if (tsan) __tsan_acquire(&L->tsan_start);
  L->k->run(L->args);
  cur->st = DONE; --cur->blk->alive; --L->nlive;
  to_main();
  abort();
}
static void resume(Thread* t) {
  if (!t->stack) {
    if (!tsan && !pool.empty()) { t->stack = pool.back(); pool.pop_back(); if (asan) __asan_unpoison_memory_region(t->stack, STACK); }
    else if (tsan && !fibers.empty()) { t->stack = fibers.back().stack; t->tsan = fibers.back().tsan; fibers.pop_back(); }
    else { t->stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); if (t->stack == MAP_FAILED) { t->stack = nullptr; snprintf(L->err, sizeof L->err, "out of fiber stacks"); L->failed = true; return; }
           mprotect(t->stack, 4096, PROT_NONE); }
    void** p = (void**)(t->stack + STACK) - 1; *p = nullptr; *--p = (void*)entry;   // at entry rsp = 8 mod 16, as after a call
    for (int i = 0; i < 6; ++i) *--p = nullptr;
    t->sp = p;
    if (tsan && !t->tsan) t->tsan = __tsan_create_fiber(0);
  }
  cur = t; emu_tid = t->tid; emu_bid = t->blk->bid; ++L->steps;
  if (tsan) __tsan_switch_to_fiber(t->tsan, 1);
  if (asan) __sanitizer_start_switch_fiber(&main_fake, t->stack, STACK);
  emu_switch(&main_sp, t->sp);
  if (asan) __sanitizer_finish_switch_fiber(main_fake, nullptr, nullptr);
  if (t->st == DONE) {
    if (tsan) {
      bool keep = L->used.size() < FIBERS;
      if (!keep) __tsan_destroy_fiber(t->tsan);
      L->used.push_back({t->stack, keep ? t->tsan : nullptr});
    } else pool.push_back(t->stack);
    t->stack = nullptr; t->tsan = nullptr;
  }
  cur = nullptr;
}
static void vfail(const char* fmt, va_list ap) { if (L->failed) return; L->failed = true; vsnprintf(L->err, sizeof L->err, fmt, ap); }
static void fail(const char* fmt, ...) { va_list ap; va_start(ap, fmt); vfail(fmt, ap); va_end(ap); }
#define TID(t) (t)->blk->bid.x, (t)->blk->bid.y, (t)->blk->bid.z, (t)->tid.x, (t)->tid.y, (t)->tid.z
#define TFMT "block (%u,%u,%u) thread (%u,%u,%u)"

extern "C" {
void emu_fail(const char* fmt, ...) {
  va_list ap; va_start(ap, fmt); vfail(fmt, ap); va_end(ap);
  size_t n = strlen(L->err); snprintf(L->err + n, sizeof L->err - n, " in " TFMT, TID(cur));
  for (;;) to_main();                                   // never resumed: the launch is abandoned
}
void emu_barrier(int kind, int line) {
  Thread* me = cur; me->st = (State)kind; me->line = line;
  if (kind == BAR_GRID && !L->coop) emu_fail("line %d: grid.sync() in a kernel that was not launched cooperatively", line);
  // two sync objects in turn: a thread may reach the next barrier before another has left this one
  void* o = kind == BAR_BLOCK ? &me->blk->obj[me->blk->epoch & 1] : &L->tsan_grid[L->epoch & 1];
  if (tsan) __tsan_release(o);
  to_main();
  if (tsan) __tsan_acquire(o);
}
int emu_block_vote(int p, int op, int line) { Thread* me = cur; me->vote = p != 0; emu_barrier(BAR_BLOCK, line); return me->blk->vote_result[op]; }
void emu_warp(uint32_t mask, uint64_t val, uint64_t out[32], uint32_t* here, int line) {
  Thread* me = cur; Warp& w = me->blk->w[me->warp];
  if (!(mask >> me->lane & 1)) emu_fail("line %d: lane %d is not in its own mask %#x", line, me->lane, mask);
  me->st = W_WARP; me->mask = mask; me->val = val; me->line = line;
  me->grp = &me->obj[me->warp_ops++ & 1];
  for (Thread* t : w.t) if (t != me && t->st == W_WARP && t->mask == mask && t->line == line) me->grp = t->grp;
  if (tsan) __tsan_release(me->grp);
  bool all = true; uint32_t got = 0;
  for (Thread* t : w.t) if (mask >> t->lane & 1) {
    if (t->st == DONE) emu_fail("line %d: warp primitive with mask %#x, but lane %d has exited", line, mask, t->lane);
    if (t->st == W_WARP && t->mask == mask && t->line == line) got |= 1u << t->lane; else all = false;
  }
  if (all) for (Thread* t : w.t) if (mask >> t->lane & 1) {
    for (Thread* u : w.t) if (mask >> u->lane & 1) t->got[u->lane] = u->val;
    t->here = got; t->st = READY;
  }
  if (!all || L->order >= 2) to_main();
  if (tsan) __tsan_acquire(me->grp);
  clean_copy(out, me->got, sizeof me->got); *here = me->here;
}
void emu_yield() { if (L->order >= 2 && rnd() & 1) to_main(); }
uint32_t emu_activemask() { uint32_t m = 0; for (Thread* t : cur->blk->w[cur->warp].t) if (t->st != DONE) m |= 1u << t->lane; return m; }
int emu_lane() { return cur->lane; }
static const size_t RED = 256;                                       // red zones around shared arrays, filled with 0xFF (NaN) like everything else
static char* carve(Block* b, size_t bytes, size_t align) {
  size_t at = (b->used + RED + align - 1) / align * align;
  if (at + bytes > 49152 + 64 * 2 * RED) emu_fail("static shared memory of a block exceeds 48 KiB");
  b->used = (at + bytes + 7) / 8 * 8;
  if (asan) __asan_unpoison_memory_region(b->arena + at, bytes);
  return b->arena + at;
}
void* emu_shared(const char*, int line, const char* name, size_t bytes, size_t align) {
  Block* b = cur->blk;
  for (int i = 0; i < b->nsh; ++i) if (b->sh[i].line == line && b->sh[i].name == name) return b->sh[i].p;   // (no libc calls here: TSan would see them)
  if (b->nsh == 64) emu_fail("more than 64 shared arrays");
  b->sh[b->nsh] = {name, line, carve(b, bytes, align < 16 ? 16 : align), bytes};
  return b->sh[b->nsh++].p;
}
void* emu_dyn_shared() { return cur->blk->arena + L->arena - (L->dyn + 15) / 16 * 16 - RED; }
size_t emu_stack_bytes(size_t n) { if (n) STACK = n; return STACK; }

static Block* make_block(uint3 bid, dim3 bd) {
  Block* b = new Block; b->bid = bid; unsigned n = bd.x * bd.y * bd.z;
  b->t.resize(n); b->w.resize((n + 31) / 32); b->alive = n;
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = b->t[i]; t.blk = b; t.tid = {i % bd.x, i / bd.x % bd.y, i / bd.x / bd.y}; t.lane = i % 32; t.warp = i / 32; b->w[t.warp].t.push_back(&t);
  }
  b->arena = (char*)aligned_alloc(128, (L->arena + 127) / 128 * 128); memset(b->arena, 0xFF, L->arena);
  if (asan) { __asan_poison_memory_region(b->arena, L->arena); char* d = b->arena + L->arena - (L->dyn + 15) / 16 * 16 - RED; __asan_unpoison_memory_region(d, L->dyn); }
  if (tsan) __tsan_release(&L->tsan_start);   // what was written here comes before all that its threads do
  return b;
}
static void check_red(Block* b) {                                     // (with ASan the red zones are poisoned instead)
  if (asan) return;
  auto bad = [&](const char* p, size_t n) { for (size_t i = 0; i < n; ++i) if (p[i] != (char)0xFF) return true; return false; };
  for (int i = 0; i < b->nsh; ++i) if (bad(b->sh[i].p + b->sh[i].bytes, RED - 16) || bad(b->sh[i].p - (RED - 16), RED - 16)) fail("write outside of __shared__ %s (line %d) in block (%u,%u,%u)", b->sh[i].name, b->sh[i].line, b->bid.x, b->bid.y, b->bid.z);
  char* d = b->arena + L->arena - (L->dyn + 15) / 16 * 16 - RED;
  if (bad(d + L->dyn, RED) || bad(d - RED, RED)) fail("write outside of the %zu bytes of dynamic shared memory in block (%u,%u,%u)", L->dyn, b->bid.x, b->bid.y, b->bid.z);
}
// runs b until no thread of it can go on; returns false if nothing happened
static bool phase(Block* b) {
  bool any = false; std::vector<Thread*> r;
  for (;;) {
    r.clear(); for (Thread& t : b->t) if (t.st == READY) r.push_back(&t);
    if (r.empty()) break;
    any = true; order(r);
    for (Thread* t : r) { resume(t); if (L->failed) return true; }
    if (L->order >= 2 && rnd() % 8 == 0) return true;               // let another block in
  }
  if (!b->alive) return any;
  unsigned waiting = 0; Thread* first = nullptr; int cnt = 0;
  for (Thread& t : b->t) if (t.st == W_BLOCK) { ++waiting; if (!first) first = &t; cnt += t.vote; }
  if (waiting && waiting == b->alive) {
    if (b->alive < b->t.size()) { fail("line %d: __syncthreads() although %zu threads of block (%u,%u,%u) have exited", first->line, b->t.size() - b->alive, b->bid.x, b->bid.y, b->bid.z); return true; }
    for (Thread& t : b->t) if (t.line != first->line) { fail("divergent __syncthreads(): " TFMT " at line %d, thread (%u,%u,%u) at line %d", TID(first), first->line, t.tid.x, t.tid.y, t.tid.z, t.line); return true; }
    b->vote_result[0] = cnt; b->vote_result[1] = cnt == (int)b->t.size(); b->vote_result[2] = cnt > 0;
    for (Thread& t : b->t) t.st = READY;
    ++b->epoch; any = true;
  }
  return any;
}
// dims: grid x,y,z, block x,y,z.  order: 0 ascending, 1 descending, >=2 random with that seed.  Returns 0, or 1 with a message in err.
int emu_launch(const Kernel* k, void** args, const unsigned* d, size_t dyn, int coop, uint64_t seed, int ftz, char* err, size_t errn) {
  Launch l; L = &l; l.k = k; l.args = args; l.dyn = dyn; l.coop = coop; l.order = seed < 2 ? (int)seed : 2; l.rng = seed * 0x9E3779B97F4A7C15ull | 1;
  tsan = __tsan_create_fiber && __tsan_switch_to_fiber; asan = __asan_poison_memory_region && __sanitizer_start_switch_fiber && !tsan;
  if (asan && STACK < (1 << 18)) STACK = 1 << 18;
  for (int i = 0; i < 4; ++i) rnd();
  emu_dims = {dim3(d[0], d[1], d[2]), dim3(d[3], d[4], d[5])};
  size_t nb = (size_t)d[0] * d[1] * d[2], nt = (size_t)d[3] * d[4] * d[5], done = 0, next = 0;
  l.arena = 49152 + 64 * 2 * RED + (dyn + 15) / 16 * 16 + 2 * RED; l.nthreads = l.nlive = nb * nt;
  if (tsan) { main_tsan = __tsan_get_current_fiber(); __tsan_release(&l.tsan_start); }
  unsigned csr = _mm_getcsr(); if (ftz) _mm_setcsr(csr | 0x8040);
  std::vector<size_t> ids(nb); for (size_t i = 0; i < nb; ++i) ids[i] = l.order == 1 ? nb - 1 - i : i;
  if (l.order >= 2) for (size_t i = nb; i > 1; --i) std::swap(ids[i - 1], ids[rnd() % i]);
  size_t window = coop ? nb : l.order >= 2 ? 1 + rnd() % 4 : 1; std::vector<Block*> live;
  while (done < nb && !l.failed) {
    while (live.size() < window && next < nb) {
      size_t i = ids[next++]; live.push_back(make_block({(unsigned)(i % d[0]), (unsigned)(i / d[0] % d[1]), (unsigned)(i / d[0] / d[1])}, emu_dims.block)); l.blocks.push_back(live.back());
    }
    bool any = false;
    if (l.order >= 2) for (size_t i = live.size(); i > 1; --i) std::swap(live[i - 1], live[rnd() % i]);
    for (size_t i = 0; i < live.size() && !l.failed;) {
      Block* b = live[i]; bool p;                                    // blocks run ahead of each other by as much as the barriers allow
      do any |= p = phase(b); while (p && !l.failed && b->alive && (l.order < 2 || rnd() % 4));
      if (!b->alive) { ++done; if (!l.failed) check_red(b); live.erase(live.begin() + i); if (!tsan) { free(b->arena); b->arena = nullptr; b->t = {}; b->w = {}; } } else ++i;
    }
    if (coop && !l.failed && l.nlive) {
      bool all = true; for (Block* b : live) for (Thread& t : b->t) all &= t.st == W_GRID || t.st == DONE;
      if (all) {
        if (l.nlive < l.nthreads) fail("grid.sync() although %u threads of the grid have exited", l.nthreads - l.nlive);
        Thread* f = &live[0]->t[0];
        for (Block* b : live) for (Thread& t : b->t) { if (t.line != f->line) fail("divergent grid.sync(): lines %d and %d", f->line, t.line); t.st = READY; }
        ++l.epoch; any = true;
      }
    }
    if (!any && !l.failed) {
      fail("deadlock:"); size_t shown = 0;
      for (Block* b : live) for (Thread& t : b->t) if (t.st != DONE && shown < 4 && (&t == &b->t[0] || (&t)[-1].st != t.st || (&t)[-1].line != t.line)) {
        size_t n = strlen(l.err); snprintf(l.err + n, sizeof l.err - n, " [" TFMT " waits at line %d for %s]", TID(&t), t.line, t.st == W_BLOCK ? "the block" : t.st == W_GRID ? "the grid" : "its warp"); ++shown;
      }
    }
  }
  _mm_setcsr(csr);
  if (tsan) __tsan_acquire(&l.tsan_end);
  emu_steps = l.steps;
  if (l.failed && err) snprintf(err, errn, "%s", l.err);
  L = nullptr;
  for (Block* b : l.blocks) {
    for (Thread& t : b->t) if (t.stack) { if (tsan && t.tsan) __tsan_destroy_fiber(t.tsan); munmap(t.stack, STACK); }
    free(b->arena); delete b;
  }
  for (Fiber& f : l.used) {
    if (f.tsan && fibers.size() < FIBERS) { fibers.push_back(f); continue; }
    if (f.tsan) __tsan_destroy_fiber(f.tsan);
    munmap(f.stack, STACK);
  }
  return l.failed;
}
}
}  // namespace emulator
