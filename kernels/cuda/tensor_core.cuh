// The product of slice.cuh on tensor cores, for storage of 16 bits with float sums.
//
// An instruction mma.m16n8k16 multiplies 16 rows of x by 8 rows of w over 16 k. The sum does not ask which k it is, as long as x and w
// agree, so a lane takes 8 numbers in one piece, 16 bytes, where the layout of the instruction speaks of 4 pieces of 4 bytes: of a chunk of
// 32 k, with t = lane % 4, k = 8 t .. 8 t + 3 serve the first of two instructions and k = 8 t + 4 .. 8 t + 7 the second. x goes from L2
// into registers without a stop.
#if defined(TENSOR_CORES)
#elif defined(REAL_IS_FLOAT16) || (defined(REAL_IS_BFLOAT16) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800))
#define TENSOR_CORES 1
#else
#define TENSOR_CORES 0
#endif

#if TENSOR_CORES
#ifndef CUDA_ON_CPU
// d (16, 8) += a (16, 16) b (16, 8), in fragments as the PTX ISA lays them out; sm_75 multiplies 8 k at a time.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2]);

#if defined(REAL_IS_FLOAT16)
template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float d[4], const unsigned a[4], const unsigned b[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}
#else
template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float d[4], const unsigned a[4], const unsigned b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
#endif

template <int M, int UNITS>
struct Tile {
  static constexpr int ROWS = THREADS / UNITS;  // 32 or 16: with one thread for each unit of each row, no thread is without
  static constexpr int CHUNK = 32;  // numbers
  static constexpr int SUMS = ROWS * M;

  __host__ __device__ static constexpr int stride(int K) { return (K + 63) / 64 * 64; }  // numbers from one row of w to the next
  __host__ __device__ static constexpr int region() { return SUMS * (int)sizeof(float); }  // bytes of a warp

  // Of w[m][k]. Odd rows have the two halves of every 128 bytes exchanged: two rows that are read together lie in different banks.
  __device__ static int place(int m, int k, int K) { return m * stride(K) + (k ^ (m & 1) << 5); }

  __device__ static void multiply(const Real* w, const Real* x, int n, int K, unsigned char* region_of_warp) {
    if (!rows_start_at_vectors(x, K))
      multiply<false, ROWS / 16>(w, x, n, K, region_of_warp);
    else if (n > 16)
      multiply<true, ROWS / 16>(w, x, n, K, region_of_warp);
    else
      multiply<true, 1>(w, x, n, K, region_of_warp);
  }

  // BANDS: how many times 16 rows there are at most. The order of a sum does not depend on it.
  template <bool WHOLE, int BANDS>
  __device__ static void multiply(const Real* w, const Real* x, int n, int K, unsigned char* region_of_warp) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int chunks = (K + CHUNK - 1) / CHUNK;
    constexpr int AHEAD = WHOLE ? 4 : 1;  // chunks of x that are on their way
    float sum[BANDS][M / 8][4] = {};
    int4 low[AHEAD][BANDS], high[AHEAD][BANDS];  // of rows g and g + 8 of each band

    auto fetch = [&](int d, int chunk) {
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        low[d][band] = vector_of<WHOLE>(x, 16 * band + g, CHUNK * chunk + 8 * t, n, K);
        high[d][band] = vector_of<WHOLE>(x, 16 * band + g + 8, CHUNK * chunk + 8 * t, n, K);
      }
    };
#pragma unroll
    for (int d = 0; d < AHEAD; ++d) fetch(d, warp + d * WARPS);
    for (int first = warp; first < chunks; first += AHEAD * WARPS) {
#pragma unroll
      for (int d = 0; d < AHEAD; ++d) {
        const int chunk = first + d * WARPS;
        if (chunk < chunks) {
#pragma unroll
          for (int j = 0; j < M / 8; ++j) {
            const int4 ws = *reinterpret_cast<const int4*>(w + place(8 * j + g, CHUNK * chunk + 8 * t, K));
            const unsigned b[2][2] = {{(unsigned)ws.x, (unsigned)ws.y}, {(unsigned)ws.z, (unsigned)ws.w}};
#pragma unroll
            for (int band = 0; band < BANDS; ++band) {
              const int4 p = low[d][band], q = high[d][band];
              const unsigned a[2][4] = {{(unsigned)p.x, (unsigned)q.x, (unsigned)p.y, (unsigned)q.y},
                                        {(unsigned)p.z, (unsigned)q.z, (unsigned)p.w, (unsigned)q.w}};
              mma_m16n8k16<Real>(sum[band][j], a[0], b[0]);
              mma_m16n8k16<Real>(sum[band][j], a[1], b[1]);
            }
          }
        }
        fetch(d, chunk + AHEAD * WARPS);
      }
    }
    float2* sums = reinterpret_cast<float2*>(region_of_warp);
#pragma unroll
    for (int band = 0; band < BANDS; ++band)
#pragma unroll
      for (int j = 0; j < M / 8; ++j) {
        float2* of_fragment = sums + (band * (M / 8) + j) * 64 + lane;
        of_fragment[0] = make_float2(sum[band][j][0], sum[band][j][1]);   // row g of the band, columns 8j + 2t, + 1
        of_fragment[32] = make_float2(sum[band][j][2], sum[band][j][3]);  // row g + 8
      }
  }

  // out[r][m], r < n: the warps' sums in the order of the warps.
  __device__ static float sum(const unsigned char* regions, int r, int m) {
    const int fragment = r / 16 * (M / 8) + m / 8;
    const int place = ((fragment * 2 + r / 8 % 2) * 32 + r % 8 * 4 + m % 8 / 2) * 2 + m % 2;
    float out = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) out += reinterpret_cast<const float*>(regions + warp * region())[place];
    return out;
  }
};
#endif
