// __half and __half2: stored in 16 bits, computed in float or double, rounded once.
#pragma once
#include "../cuda_on_cpu.h"
#include "../small_floats.h"

struct __half_raw {
  unsigned short x;
};

struct alignas(2) __half {
  uint16_t bits;
  __half() = default;
  __half(float value) : bits(emulator::half_bits(value)) {}
  __half(double value) : bits(emulator::half_bits(value)) {}
  __half(int value) : bits(emulator::half_bits(value)) {}
  __half(__half_raw raw) : bits(raw.x) {}
  operator float() const { return emulator::half_value(bits); }
  __half& operator+=(__half other);
  __half& operator-=(__half other);
  __half& operator*=(__half other);
  __half& operator/=(__half other);
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

static inline __half __float2half(float value) { return __half(value); }
static inline __half __float2half_rn(float value) { return __half(value); }
static inline __half __double2half(double value) { return __half(value); }
static inline __half __int2half_rn(int value) { return __half(value); }
static inline float __half2float(__half value) { return emulator::half_value(value.bits); }
static inline __half __ushort_as_half(unsigned short bits) { return __half(__half_raw{bits}); }
static inline unsigned short __half_as_ushort(__half value) { return value.bits; }

static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 make_half2(__half x, __half y) { return {x, y}; }
static inline __half2 __half2half2(__half value) { return {value, value}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __float22half2_rn(float2 value) { return {__half(value.x), __half(value.y)}; }
static inline __half2 __float2half2_rn(float value) { return {__half(value), __half(value)}; }
static inline float2 __half22float2(__half2 value) { return {__half2float(value.x), __half2float(value.y)}; }
static inline __half __low2half(__half2 value) { return value.x; }
static inline __half __high2half(__half2 value) { return value.y; }
static inline float __low2float(__half2 value) { return __half2float(value.x); }
static inline float __high2float(__half2 value) { return __half2float(value.y); }

static inline __half __hadd(__half a, __half b) { return __half(__half2float(a) + __half2float(b)); }
static inline __half __hsub(__half a, __half b) { return __half(__half2float(a) - __half2float(b)); }
static inline __half __hmul(__half a, __half b) { return __half(__half2float(a) * __half2float(b)); }
static inline __half __hdiv(__half a, __half b) { return __half(__half2float(a) / __half2float(b)); }
static inline __half __hneg(__half a) { return __ushort_as_half(a.bits ^ 0x8000); }
static inline __half __habs(__half a) { return __ushort_as_half(a.bits & 0x7fff); }
static inline __half __hfma(__half a, __half b, __half c) {
  return __ushort_as_half(emulator::narrow_fma<5, 10>(__half2float(a), __half2float(b), __half2float(c)));
}
static inline __half2 __hadd2(__half2 a, __half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
static inline __half2 __hsub2(__half2 a, __half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
static inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }

static inline __half operator+(__half a, __half b) { return __hadd(a, b); }
static inline __half operator-(__half a, __half b) { return __hsub(a, b); }
static inline __half operator*(__half a, __half b) { return __hmul(a, b); }
static inline __half operator/(__half a, __half b) { return __hdiv(a, b); }
static inline __half operator-(__half a) { return __hneg(a); }
inline __half& __half::operator+=(__half other) { return *this = *this + other; }
inline __half& __half::operator-=(__half other) { return *this = *this - other; }
inline __half& __half::operator*=(__half other) { return *this = *this * other; }
inline __half& __half::operator/=(__half other) { return *this = *this / other; }
static inline bool __hisnan(__half a) { return __half2float(a) != __half2float(a); }
static inline bool __heq(__half a, __half b) { return __half2float(a) == __half2float(b); }
static inline bool __hlt(__half a, __half b) { return __half2float(a) < __half2float(b); }
static inline bool __hgt(__half a, __half b) { return __half2float(a) > __half2float(b); }

namespace emulator {

EMU_LETTER(__half, 'e')
template <> struct Storage<__half> {
  static float value(uint16_t bits) { return half_value(bits); }
};

}  // namespace emulator
