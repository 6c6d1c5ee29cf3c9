// 16-bit floating point in software: rounding a double to it, and widening it to a float. Both are exact to the bit.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulator {

// The 16 bits of the number with EXPONENT and MANTISSA bits that is nearest to `value`; ties go to the even one, as all GPUs round.
template <int EXPONENT, int MANTISSA> uint16_t narrow(double value) {
  constexpr int least = 2 - (1 << (EXPONENT - 1));  // exponent of the smallest normal number, and of all subnormal ones
  constexpr unsigned infinity = ((1u << EXPONENT) - 1) << MANTISSA;
  const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
  if (std::isnan(value)) return 0x7fff;  // the one NaN that a GPU's conversions return
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  int exponent = value == 0 ? least : std::ilogb(value);
  if (exponent < least) exponent = least;
  if (exponent > -least + 2) return static_cast<uint16_t>(sign | infinity);
  const double units = std::nearbyint(std::ldexp(std::fabs(value), MANTISSA - exponent));  // at most 2^(MANTISSA + 1)
  // Adding carries a mantissa that was rounded up to 2 into the exponent, and the largest exponent into infinity.
  const unsigned bits = static_cast<unsigned>(units) + (static_cast<unsigned>(exponent - least) << MANTISSA);
  return static_cast<uint16_t>(sign | (bits < infinity ? bits : infinity));
}

// a b + c with one rounding. The sum of doubles is rounded to odd, which the rounding to 16 bits that follows cannot mistake for a tie.
template <int EXPONENT, int MANTISSA> uint16_t narrow_fma(double a, double b, double c) {
  const double product = a * b, sum = product + c;  // the product of two 16-bit numbers is exact
  const double part = sum - product, error = (product - (sum - part)) + (c - part);
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  if (!std::isfinite(sum) || error == 0 || bits & 1) return narrow<EXPONENT, MANTISSA>(sum);
  return narrow<EXPONENT, MANTISSA>(std::nextafter(sum, error > 0 ? INFINITY : -INFINITY));
}

inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint16_t half_bits(double value) { return narrow<5, 10>(value); }
inline uint16_t bfloat16_bits(double value) { return narrow<8, 7>(value); }

inline float half_value(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(mantissa) * 0x1p-24f;
  return from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
}
inline float bfloat16_value(uint16_t bits) { return from_bits(static_cast<uint32_t>(bits) << 16); }

}  // namespace emulator
