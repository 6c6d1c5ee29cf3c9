// The functions of a warp: 32 threads that exchange what is in their registers. All lanes in the mask must call the same one at the same
// line.
#pragma once

static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_PLACE) {
  uint64_t values[32];
  emulator::exchange(mask, 0, values, place);
}
static inline unsigned __activemask() { return emulator::running_lanes(); }

static inline unsigned __ballot_sync(unsigned mask, int vote, EMU_PLACE) {
  uint64_t values[32];
  const uint32_t here = emulator::exchange(mask, vote != 0, values, place);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i)
    if (here >> i & 1 && values[i]) votes |= 1u << i;
  return votes;
}
static inline int __any_sync(unsigned mask, int vote, EMU_PLACE) { return __ballot_sync(mask, vote, place) != 0; }
static inline int __all_sync(unsigned mask, int vote, EMU_PLACE) { return __ballot_sync(mask, vote, place) == mask; }

namespace emulator {

// The value of the lane `source`, which must take part as well.
template <class T> T shuffle(uint32_t mask, T value, int source, Place place) {
  uint64_t values[32];
  const uint32_t here = exchange(mask, to_word(value), values, place);
  if (!(here >> source & 1))
    fail("%s:%d: a shuffle reads lane %d, which does not take part (mask %#x)", place.file, place.line, source, mask);
  return from_word<T>(values[source]);
}

// All of `mask`, combined by `combine` in the order of the lanes.
template <class T, class Combine> T reduce(uint32_t mask, T value, Combine combine, Place place) {
  uint64_t values[32];
  const uint32_t here = exchange(mask, to_word(value), values, place);
  T total{};
  bool first = true;
  for (int i = 0; i < 32; ++i)
    if (here >> i & 1) {
      total = first ? from_word<T>(values[i]) : combine(total, from_word<T>(values[i]));
      first = false;
    }
  return total;
}

inline void exchange_all(uint64_t value, uint64_t (&values)[32], Place place) { exchange(0xffffffffu, value, values, place); }

}  // namespace emulator

// A warp may be divided into segments of `width` lanes; a lane that would read beyond its segment reads itself.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_PLACE) {
  const int segment = emulator::lane() & ~(width - 1);
  return emulator::shuffle(mask, value, segment + (source & (width - 1)), place);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_PLACE) {
  const int lane = emulator::lane(), segment = lane & ~(width - 1), source = lane ^ bits;
  return emulator::shuffle(mask, value, source < segment + width ? source : lane, place);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, EMU_PLACE) {
  const int lane = emulator::lane(), segment = lane & ~(width - 1), source = lane - static_cast<int>(distance);
  return emulator::shuffle(mask, value, source >= segment ? source : lane, place);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, EMU_PLACE) {
  const int lane = emulator::lane(), segment = lane & ~(width - 1), source = lane + static_cast<int>(distance);
  return emulator::shuffle(mask, value, source < segment + width ? source : lane, place);
}

#define EMU_REDUCE(NAME, RESULT) \
  template <class T> T NAME(unsigned mask, T value, EMU_PLACE) { \
    static_assert(std::is_integral_v<T>, "a GPU reduces integers alone in one instruction"); \
    return emulator::reduce(mask, value, [](T a, T b) { return T(RESULT); }, place); \
  }
EMU_REDUCE(__reduce_add_sync, a + b)
EMU_REDUCE(__reduce_min_sync, a < b ? a : b)
EMU_REDUCE(__reduce_max_sync, a > b ? a : b)
EMU_REDUCE(__reduce_and_sync, a & b)
EMU_REDUCE(__reduce_or_sync, a | b)
EMU_REDUCE(__reduce_xor_sync, a ^ b)
