// CUDA's vectors. Those of two and four are aligned as a whole, which the undefined-behaviour sanitizer holds a kernel to.
#pragma once

#define EMU_VECTORS(T, NAME) \
  struct NAME##1 { \
    T x; \
  }; \
  struct alignas(2 * sizeof(T)) NAME##2 { \
    T x, y; \
  }; \
  struct NAME##3 { \
    T x, y, z; \
  }; \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) NAME##4 { \
    T x, y, z, w; \
  }; \
  static inline NAME##1 make_##NAME##1(T x) { return {x}; } \
  static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; } \
  static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; } \
  static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

EMU_VECTORS(unsigned, uint)
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)
EMU_VECTORS(signed char, char)
EMU_VECTORS(unsigned char, uchar)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(int, int)
EMU_VECTORS(long long, longlong)
EMU_VECTORS(unsigned long long, ulonglong)
using uint = unsigned;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
