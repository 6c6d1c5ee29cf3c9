// CUDA C++ for a C++17 compiler: the keywords, the built-in variables and the functions that a kernel uses. build.py puts it before every
// kernel.
//
// Each CUDA thread is a fiber, a stack of its own on the one thread of the operating system that runs them all. It runs until it waits: at
// a barrier, in an exchange with its warp, in a sleep. runtime.cpp decides who runs next.
#pragma once
#define CUDA_ON_CPU 1
#include <cassert>
#include <cmath>
#include <cstdio>
#include <type_traits>

#include "kernel_table.h"
#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// translate.py writes these for `__shared__ T name[..];` and `extern __shared__ T name[];`.
#define EMU_SHARED(T, name, ...) \
  static constexpr emulator::SharedArray emu_shared_##name{#name, {__FILE__, __LINE__}}; \
  T(&name) __VA_ARGS__ = *reinterpret_cast<std::remove_reference_t<T(&) __VA_ARGS__>*>( \
      emulator::shared_array(emu_shared_##name, sizeof(std::remove_reference_t<T(&) __VA_ARGS__>), alignof(T)))
#define EMU_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emulator::dynamic_shared())

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size
constexpr int warpSize = 32;

#define EMU_PLACE emulator::Place place = emulator::Place::here()

// Barriers and fences

static inline void __syncthreads(EMU_PLACE) { emulator::block_barrier(place); }
static inline int __syncthreads_count(int vote, EMU_PLACE) { return emulator::block_vote(vote, emulator::Vote::count, place); }
static inline int __syncthreads_and(int vote, EMU_PLACE) { return emulator::block_vote(vote, emulator::Vote::all, place); }
static inline int __syncthreads_or(int vote, EMU_PLACE) { return emulator::block_vote(vote, emulator::Vote::any, place); }
static inline void __threadfence() { emulator::fence(); }
static inline void __threadfence_block() { emulator::fence(); }
static inline void __threadfence_system() { emulator::fence(); }
static inline void __nanosleep(unsigned) { emulator::sleep(); }
[[noreturn]] static inline void __trap(EMU_PLACE) { emulator::fail("__trap() at %s:%d", place.file, place.line); }

#undef assert
#define assert(condition) \
  ((condition) ? void(0) : emulator::fail("assert(%s) at %s:%d", #condition, emulator::Place::here().file, emulator::Place::here().line))

// Warps

#include "warp.h"

// Memory. Loads and stores with a cache hint are ordinary ones here, but other threads may run before them.

template <class T> T emu_load(const T* from) {
  emulator::maybe_yield();
  return *from;
}
template <class T> void emu_store(T* to, std::common_type_t<T> value) {
  *to = value;
  emulator::maybe_yield();
}
template <class T> T __ldg(const T* from) { return *from; }
template <class T> T __ldca(const T* from) { return *from; }
template <class T> T __ldcs(const T* from) { return *from; }
template <class T> T __ldcg(const T* from) { return emu_load(from); }
template <class T> T __ldcv(const T* from) { return emu_load(from); }
template <class T> void __stcg(T* to, std::common_type_t<T> value) { emu_store(to, value); }
template <class T> void __stcs(T* to, std::common_type_t<T> value) { emu_store(to, value); }
template <class T> void __stwb(T* to, std::common_type_t<T> value) { emu_store(to, value); }
template <class T> void __stwt(T* to, std::common_type_t<T> value) { emu_store(to, value); }

// Atomics, by the host's compare-and-swap, so that the thread sanitizer knows them as such.
template <class T, class Change> T emu_atomic(T* at, Change change) {
  using Word = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  Word* word = reinterpret_cast<Word*>(at);
  Word before = __atomic_load_n(word, __ATOMIC_RELAXED), after;
  do after = static_cast<Word>(emulator::to_word(change(emulator::from_word<T>(before))));
  while (!__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  emulator::maybe_yield();
  return emulator::from_word<T>(before);
}
#define EMU_ATOMIC(NAME, RESULT) \
  template <class T> T NAME(T* at, std::common_type_t<T> value) { \
    return emu_atomic(at, [=]([[maybe_unused]] T old) { return T(RESULT); }); \
  }
EMU_ATOMIC(atomicAdd, old + value)
EMU_ATOMIC(atomicSub, old - value)
EMU_ATOMIC(atomicMax, old > value ? old : value)
EMU_ATOMIC(atomicMin, old < value ? old : value)
EMU_ATOMIC(atomicAnd, old & value)
EMU_ATOMIC(atomicOr, old | value)
EMU_ATOMIC(atomicXor, old ^ value)
EMU_ATOMIC(atomicExch, value)
EMU_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
EMU_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
template <class T> T atomicCAS(T* at, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return emu_atomic(at, [=](T old) { return old == expected ? T(value) : old; });
}

// Arithmetic. The fast versions of functions are the exact ones here.

template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>> auto min(A a, B b) {
  return b < a ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>> auto max(A a, B b) {
  return a < b ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
#define __expf(x) expf(x)  // macros, for the C library declares functions of these names
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanhf(x) tanhf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }  // NaN gives 0
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline double rsqrt(double a) { return 1.0 / sqrt(a); }

static inline int __float_as_int(float a) { return emulator::from_word<int>(emulator::to_word(a)); }
static inline unsigned __float_as_uint(float a) { return emulator::from_word<unsigned>(emulator::to_word(a)); }
static inline float __int_as_float(int a) { return emulator::from_word<float>(emulator::to_word(a)); }
static inline float __uint_as_float(unsigned a) { return emulator::from_word<float>(emulator::to_word(a)); }
static inline long long __double_as_longlong(double a) { return emulator::from_word<long long>(emulator::to_word(a)); }
static inline double __longlong_as_double(long long a) { return emulator::from_word<double>(emulator::to_word(a)); }
static inline int __float2int_rn(float a) { return static_cast<int>(nearbyintf(a)); }
static inline int __float2int_rz(float a) { return static_cast<int>(a); }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
static inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (a >> i & 1) << (31 - i);
  return reversed;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32); }
static inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

#include "tensor_core.h"
