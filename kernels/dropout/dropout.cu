// Dropout: y_e = x_e / (1 - p) where word e mod 4 of Philox4x32-10 with counter e / 4 is at least q, and 0 elsewhere.
// The equations are those of numpy_.py.
//
// Geometry   1-D; a thread takes the four elements of one counter, blocks have 256 threads, the grid has ceil(size / 1024)
// Registers  counter, key and the four elements
// Memory     x is read once, y is written once, nothing is stored of the mask: 2 sizeof(Real) bytes per element
// Work       20 products of 32 x 32 bits and 60 operations more for four elements
// Floor      the traffic: 2 sizeof(Real) size / bandwidth

#include "../cuda/types.cuh"

// Four neighbours, moved by one or two instructions where they are aligned.
struct __align__(4 * sizeof(Real)) Quad {
  Real at[4];
};

// (1), (4), (5): the words of the counter b
__device__ __forceinline__ uint4 philox(unsigned long long b, unsigned long long key) {
  unsigned c_0 = (unsigned)b, c_1 = (unsigned)(b >> 32), c_2 = 0, c_3 = 0;
  unsigned k_0 = (unsigned)key, k_1 = (unsigned)(key >> 32);
#pragma unroll
  for (int n = 0; n < 10; ++n) {
    const unsigned long long m_0 = 0xD2511F53ull * c_0, m_1 = 0xCD9E8D57ull * c_2;
    c_0 = (unsigned)(m_1 >> 32) ^ c_1 ^ k_0;  // (4)
    c_1 = (unsigned)m_1;
    c_2 = (unsigned)(m_0 >> 32) ^ c_3 ^ k_1;
    c_3 = (unsigned)m_0;
    k_0 += 0x9E3779B9u;  // (5)
    k_1 += 0xBB67AE85u;
  }
  return make_uint4(c_0, c_1, c_2, c_3);
}

// x      (size,)  read
// y      (size,)  written; may be x itself
// size   elements
// key    64 bits
// q      an element whose word is below it is dropped
// scale  1 / (1 - p)
extern "C" __global__ void __launch_bounds__(256)
dropout_apply(const Real* x, Real* y, long long size, unsigned long long key, unsigned q, Wide scale) {
  const long long b = (long long)blockIdx.x * blockDim.x + threadIdx.x, e = 4 * b;
  if (e >= size) return;
  const uint4 words = philox((unsigned long long)b, key);
  const unsigned w[4] = {words.x, words.y, words.z, words.w};
  const bool aligned = ((size_t)x | (size_t)y) % sizeof(Quad) == 0;
  if (aligned && e + 4 <= size) {
    Quad quad = *reinterpret_cast<const Quad*>(x + e);
#pragma unroll
    for (int n = 0; n < 4; ++n) quad.at[n] = narrow(w[n] >= q ? widen(quad.at[n]) * scale : Wide(0));  // (2), (3)
    *reinterpret_cast<Quad*>(y + e) = quad;
    return;
  }
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (e + n < size) y[e + n] = narrow(w[n] >= q ? widen(x[e + n]) * scale : Wide(0));
}
