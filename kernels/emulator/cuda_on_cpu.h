// cuda_on_cpu.h - compile CUDA C++ kernels with a host C++17 compiler; the runtime is runtime.cpp.
// Every CUDA thread is a fiber; all fibers of a launch run on the calling OS thread, in an order drawn from a seed.
#pragma once
#define CUDA_ON_CPU 1
#include <cmath>
#include <math.h>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// build.py rewrites `__shared__ T x[..];` and `extern __shared__ T x[];` to these two:
#define EMU_SHARED(T, name, ...) T (&name) __VA_ARGS__ = *reinterpret_cast<std::remove_reference_t<T (&) __VA_ARGS__>*>( \
    emulator::shared(__FILE__, __LINE__, #name, sizeof(std::remove_reference_t<T (&) __VA_ARGS__>), alignof(T)))
#define EMU_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(emulator::dyn_shared())

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
#define EMU_VEC(T, N) struct alignas(sizeof(T) * 2) N##2 { T x, y; }; struct N##3 { T x, y, z; }; \
  struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) N##4 { T x, y, z, w; }; \
  static inline N##2 make_##N##2(T a, T b) { return {a, b}; } static inline N##3 make_##N##3(T a, T b, T c) { return {a, b, c}; } \
  static inline N##4 make_##N##4(T a, T b, T c, T d) { return {a, b, c, d}; }
typedef unsigned int uint; EMU_VEC(float, float) EMU_VEC(double, double) EMU_VEC(int, int)
struct alignas(8) uint2 { unsigned x, y; }; struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; } static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

namespace emulator {
struct Dims { dim3 grid, block; };
extern "C" {
extern uint3 emu_tid, emu_bid;
extern Dims emu_dims;
enum { BAR_BLOCK = 1, BAR_GRID = 2, BAR_WARP = 3 };
void emu_barrier(int kind, int line);                       // block / grid barrier
int emu_block_vote(int pred, int op, int line);             // op 0 count, 1 and, 2 or
void emu_warp(uint32_t mask, uint64_t val, uint64_t out[32], uint32_t* present, int line);  // exchange within a warp
void emu_yield();
void emu_fail(const char* fmt, ...);
void* emu_shared(const char* file, int line, const char* name, size_t bytes, size_t align);
void* emu_dyn_shared();
uint32_t emu_activemask();
int emu_lane();
}
inline void* shared(const char* f, int l, const char* n, size_t b, size_t a) { return emu_shared(f, l, n, b, a); }
inline void* dyn_shared() { return emu_dyn_shared(); }

template <class T> uint64_t pack(T v) { static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>); uint64_t u = 0; memcpy(&u, &v, sizeof v); return u; }
template <class T> T unpack(uint64_t u) { T v; memcpy(&v, &u, sizeof v); return v; }
template <class T> T shfl(uint32_t mask, T v, int src, int line) {
  uint64_t o[32]; uint32_t here; emu_warp(mask, pack(v), o, &here, line);
  if (!(here >> src & 1)) emu_fail("line %d: shuffle reads lane %d, which is not taking part (mask %#x)", line, src, mask);
  return unpack<T>(o[src]);
}
inline void exchange_all(uint64_t val, uint64_t out[32], int line) { uint32_t here; emu_warp(0xffffffffu, val, out, &here, line); }
// kernels are called through Invoke<&kernel>::run(void** args); sig() is checked against the caller's argument types
template <class T> constexpr char type_code() { return 'S'; }  // specialised by cuda_fp16.h and cuda_bf16.h
template <class T> constexpr char code() {
  using U = std::remove_cv_t<T>;
  return std::is_pointer_v<U> ? 'P' : std::is_same_v<U, bool> ? '?' : std::is_floating_point_v<U> ? (sizeof(U) == 4 ? 'f' : 'd')
       : std::is_integral_v<U> ? (sizeof(U) == 1 ? (std::is_signed_v<U> ? 'b' : 'B') : sizeof(U) == 2 ? (std::is_signed_v<U> ? 'h' : 'H') : sizeof(U) == 4 ? (std::is_signed_v<U> ? 'i' : 'I') : (std::is_signed_v<U> ? 'q' : 'Q')) : type_code<U>();
}
template <class T> constexpr char ptr_code() {
  if constexpr (std::is_pointer_v<T>) return std::is_void_v<std::remove_pointer_t<T>> ? 'v' : code<std::remove_pointer_t<T>>(); else return '-';
}
template <class T> constexpr char ptr_const() { if constexpr (std::is_pointer_v<T>) return std::is_const_v<std::remove_pointer_t<T>> ? 'c' : 'm'; else return '-'; }
template <auto F> struct Invoke;
template <class... A, void (*F)(A...)> struct Invoke<F> {
  template <size_t... I> static void call(void** a, std::index_sequence<I...>) { F(*reinterpret_cast<std::remove_cv_t<A>*>(a[I])...); }
  static void run(void** a) { call(a, std::index_sequence_for<A...>{}); }
  static constexpr char sig[] = {(char)0, code<A>()..., '\0'}, pcode[] = {(char)0, ptr_code<A>()..., '\0'}, pconst[] = {(char)0, ptr_const<A>()..., '\0'};
};
struct Kernel { void (*run)(void**); const char *sig, *pcode, *pconst; };
}  // namespace emulator
#define EMU_EXPORT(ID, ...) extern "C" { extern emulator::Kernel emu_k_##ID; emulator::Kernel emu_k_##ID = {emulator::Invoke<&__VA_ARGS__>::run, \
  emulator::Invoke<&__VA_ARGS__>::sig + 1, emulator::Invoke<&__VA_ARGS__>::pcode + 1, emulator::Invoke<&__VA_ARGS__>::pconst + 1}; }

#define threadIdx emulator::emu_tid
#define blockIdx emulator::emu_bid
#define blockDim emulator::emu_dims.block
#define gridDim emulator::emu_dims.grid
#define warpSize 32
#define EMU_LINE int line = __builtin_LINE()
static inline void __syncthreads(EMU_LINE) { emulator::emu_barrier(emulator::BAR_BLOCK, line); }
static inline int __syncthreads_count(int p, EMU_LINE) { return emulator::emu_block_vote(p, 0, line); }
static inline int __syncthreads_and(int p, EMU_LINE) { return emulator::emu_block_vote(p, 1, line); }
static inline int __syncthreads_or(int p, EMU_LINE) { return emulator::emu_block_vote(p, 2, line); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_LINE) { uint64_t o[32]; uint32_t h; emulator::emu_warp(mask, 0, o, &h, line); }
static inline unsigned __activemask() { return emulator::emu_activemask(); }
static inline unsigned __ballot_sync(unsigned mask, int p, EMU_LINE) { uint64_t o[32]; uint32_t h, r = 0; emulator::emu_warp(mask, p != 0, o, &h, line); for (int i = 0; i < 32; ++i) if (h >> i & 1 && o[i]) r |= 1u << i; return r; }
static inline int __any_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, p, line) != 0; }
static inline int __all_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, p, line) == mask; }
template <class T> T __shfl_sync(unsigned m, T v, int s, int w = 32, EMU_LINE) { int l = emulator::emu_lane(); return emulator::shfl(m, v, (l & ~(w - 1)) + (s & (w - 1)), line); }
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, EMU_LINE) { int l = emulator::emu_lane(), s = l ^ x; return emulator::shfl(m, v, s >= (l & ~(w - 1)) + w ? l : s, line); }
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, EMU_LINE) { int l = emulator::emu_lane(), s = l - (int)d; return emulator::shfl(m, v, s < (l & ~(w - 1)) ? l : s, line); }
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, EMU_LINE) { int l = emulator::emu_lane(), s = l + (int)d; return emulator::shfl(m, v, s >= (l & ~(w - 1)) + w ? l : s, line); }
static inline void __threadfence() { emulator::emu_yield(); }
static inline void __threadfence_block() { emulator::emu_yield(); }
static inline void __nanosleep(unsigned) { emulator::emu_yield(); }
static inline void __trap(EMU_LINE) { emulator::emu_fail("line %d: __trap()", line); }

// atomics: CAS loops on the host's atomics, so that ThreadSanitizer sees them as atomic accesses
template <class T, class F> T emu_atomic(T* p, F f) {
  using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  U o = __atomic_load_n((U*)p, __ATOMIC_RELAXED), n;
  do n = (U)emulator::pack(f(emulator::unpack<T>(o))); while (!__atomic_compare_exchange_n((U*)p, &o, n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  emulator::emu_yield();
  return emulator::unpack<T>(o);
}
template <class T> using emu_id = std::common_type_t<T>;
template <class T> T atomicAdd(T* p, emu_id<T> v) { return emu_atomic(p, [=](T o) { return T(o + v); }); }
template <class T> T atomicSub(T* p, emu_id<T> v) { return emu_atomic(p, [=](T o) { return T(o - v); }); }
template <class T> T atomicMax(T* p, emu_id<T> v) { return emu_atomic(p, [=](T o) { return o > v ? o : v; }); }
template <class T> T atomicMin(T* p, emu_id<T> v) { return emu_atomic(p, [=](T o) { return o < v ? o : v; }); }
template <class T> T atomicExch(T* p, emu_id<T> v) { return emu_atomic(p, [=](T) { return v; }); }
template <class T> T atomicCAS(T* p, emu_id<T> c, emu_id<T> v) { return emu_atomic(p, [=](T o) { return o == c ? v : o; }); }

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcg(T* p, emu_id<T> v) { *p = v; }
template <class T> std::enable_if_t<std::is_arithmetic_v<T>, T> min(T a, emu_id<T> b) { return b < a ? b : a; }
template <class T> std::enable_if_t<std::is_arithmetic_v<T>, T> max(T a, emu_id<T> b) { return a < b ? b : a; }
#define __expf(x) expf(x)      // (glibc declares functions of these names)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __saturatef(float a) { return a < 0 ? 0 : a > 1 ? 1 : a; }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline int __float_as_int(float a) { return emulator::unpack<int>(emulator::pack(a)); }
static inline float __int_as_float(int a) { return emulator::unpack<float>(emulator::pack(a)); }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }

#include "tensor_core.h"

namespace cooperative_groups {
static inline unsigned lin_tid() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
static inline unsigned lin_bid() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }
struct thread_block {
  void sync(EMU_LINE) const { emulator::emu_barrier(emulator::BAR_BLOCK, line); }
  unsigned thread_rank() const { return lin_tid(); }
  unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
  unsigned num_threads() const { return size(); }
};
struct grid_group {
  void sync(EMU_LINE) const { emulator::emu_barrier(emulator::BAR_GRID, line); }
  unsigned long long size() const { return 1ull * gridDim.x * gridDim.y * gridDim.z * thread_block{}.size(); }
  unsigned long long num_threads() const { return size(); }
  unsigned long long thread_rank() const { return 1ull * lin_bid() * thread_block{}.size() + lin_tid(); }
  unsigned long long block_rank() const { return lin_bid(); }
  unsigned long long num_blocks() const { return 1ull * gridDim.x * gridDim.y * gridDim.z; }
  bool is_valid() const { return true; }
};
template <unsigned N> struct tile {
  unsigned mask() const { return N == 32 ? 0xffffffffu : ((1u << N % 32) - 1) << (emulator::emu_lane() / N * N); }
  void sync(EMU_LINE) const { __syncwarp(mask(), line); }
  unsigned thread_rank() const { return emulator::emu_lane() % N; }
  unsigned size() const { return N; }
  unsigned meta_group_rank() const { return lin_tid() / N; }
  unsigned meta_group_size() const { return (thread_block{}.size() + N - 1) / N; }
  template <class T> T shfl(T v, int s, EMU_LINE) const { return __shfl_sync(mask(), v, s, N, line); }
  template <class T> T shfl_xor(T v, int s, EMU_LINE) const { return __shfl_xor_sync(mask(), v, s, N, line); }
  template <class T> T shfl_down(T v, int s, EMU_LINE) const { return __shfl_down_sync(mask(), v, s, N, line); }
};
template <unsigned N> using thread_block_tile = tile<N>;
static inline thread_block this_thread_block() { return {}; }
static inline grid_group this_grid() { return {}; }
template <unsigned N> tile<N> tiled_partition(const thread_block&) { return {}; }
template <class G> void sync(const G& g, EMU_LINE) { g.sync(line); }
}  // namespace cooperative_groups
