// One tensor core instruction: D (16, 8) += A (16, 16) B (16, 8), float16 or bfloat16 in, float32 sums.
//
// The warp holds the three matrices in its registers as the PTX ISA lays them out for mma.sync.aligned.m16n8k16. With g = lane / 4 and
// t = lane % 4, and two 16-bit numbers to a register, the lower column (A) or row (B) in the lower half:
//
//   a[0]  A[g    ][2t, 2t + 1]       a[2]  A[g    ][2t + 8, 2t + 9]       b[0]  B[2t, 2t + 1][g]
//   a[1]  A[g + 8][2t, 2t + 1]       a[3]  A[g + 8][2t + 8, 2t + 9]       b[1]  B[2t + 8, 2t + 9][g]
//   d[0], d[1]  D[g][2t, 2t + 1]     d[2], d[3]  D[g + 8][2t, 2t + 1]
//
// Every lane reads the others' registers through the exchange of the warp, so an index that is wrong in any lane gives a wrong result.
// A product of two 16-bit numbers is exact in float32; the 16 of them are added to D one after the other, k ascending. A real tensor core
// adds in an order of its own and does not round every partial sum: results agree to the rounding of a sum of 17 terms, not to the bit.
#pragma once

namespace emulator {

template <class T> struct Storage;  // of a 16-bit type: value(bits), its float; cuda_fp16.h and cuda_bf16.h have one each

struct Operand {
  uint64_t low[32], high[32];  // registers 0 and 1, and 2 and 3, of every lane
  uint16_t element(int lane, int reg, int which) const {
    const uint64_t pair = (reg < 2 ? low : high)[lane];
    return static_cast<uint16_t>(pair >> (32 * (reg % 2) + 16 * which));
  }
};

}  // namespace emulator

// All 32 lanes call it together. T is __half or __nv_bfloat16: mma_m16n8k16<__half>(d, a, b), or a null T* as the last argument.
template <class T>
void mma_m16n8k16(float d[4], const uint32_t a[4], const uint32_t b[2], const T* = nullptr, EMU_PLACE) {
  emulator::Operand A, B;
  emulator::exchange_all(static_cast<uint64_t>(a[1]) << 32 | a[0], A.low, place);
  emulator::exchange_all(static_cast<uint64_t>(a[3]) << 32 | a[2], A.high, place);
  emulator::exchange_all(static_cast<uint64_t>(b[1]) << 32 | b[0], B.low, place);
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int lower = i / 2, column = 2 * t + i % 2;  // D[g + 8 lower][column]
    float sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const int owner = k % 8 / 2, upper = k / 8;  // of the four lanes of a row of A or a column of B, the one that holds this k
      const float a_k = emulator::Storage<T>::value(A.element(4 * g + owner, lower + 2 * upper, k % 2));
      const float b_k = emulator::Storage<T>::value(B.element(4 * column + owner, upper, k % 2));
      sum += a_k * b_k;
    }
    d[i] = sum;
  }
}
