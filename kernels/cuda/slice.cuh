// The product that all persistent kernels share: a tile of rows of x times the slice of w that a block keeps on chip.
//
//     out[r][m] = sum over k of x[r][k] w[m][k]        r < rows of a tile, m < M, k < K
//
// Forward, x is h_{t-1}, w the rows of w_hh of all G gates of the block's hidden units: M = G units, K = H. Backward, x is dz_t and w the
// block's columns of w_hh: M = units, K = G H.
//
// Shared memory  w, M rows in storage type, for the whole sequence; and a region for each warp: x on its way, then the warp's sums
// Registers      a tile of sums per thread
// Per tile       2 rows M K operations; x, rows K numbers, comes from the L2 cache once; w, M K numbers, from shared memory once
//
// The WARPS warps share out K: warp p takes the chunks p, p + WARPS, ... of 128 bytes of a row (64 bytes on tensor cores). Their sums are
// added in one order, so an element of `out` depends on its own row of x, on w, on K and M and on nothing else in the batch.
//
// Rows of x that other blocks wrote in this launch must come from the L2 cache (__ldcg): the L1 caches know nothing of each other.

#define WARPS 8
#define THREADS (32 * WARPS)
#define VECTOR (16 / (int)sizeof(Real))  // numbers in 16 bytes

struct alignas(16) Vector {
  Real value[VECTOR];
};

// Numbers k .. k + VECTOR of row r of x, from L2 and as they lie there; zeros for rows from n on and for numbers from K on.
// WHOLE: every row starts at a multiple of 16 bytes. Then nothing touches the vector until it is needed, so that many are on their way.
template <bool WHOLE>
__device__ __forceinline__ int4 vector_of(const Real* x, int r, int k, int n, int K) {
  int4 vector = make_int4(0, 0, 0, 0);
  const Real* from = x + at(r, K) + k;
  if (WHOLE) {
    if (r < n && k < K) vector = __ldcg(reinterpret_cast<const int4*>(from));
  } else {
    Vector v;
#pragma unroll
    for (int e = 0; e < VECTOR; ++e) v.value[e] = r < n && k + e < K ? __ldcg(from + e) : narrow(Wide(0));
    memcpy(&vector, &v, sizeof vector);
  }
  return vector;
}

__device__ __forceinline__ bool rows_start_at_vectors(const Real* x, int K) {
  return (reinterpret_cast<size_t>(x) | (size_t)K * sizeof(Real)) % sizeof(Vector) == 0;
}

#include "tensor_core.cuh"

#if !TENSOR_CORES
// Lanes of a warp: 4 row lanes, and 8 that are COLUMN_LANES times K_LANES. A thread sums ROWS / 4 rows by M / COLUMN_LANES columns over
// every K_LANES-th vector of its warp's chunks. Lanes 2i and 2i + 1 read the same w, lanes i and i + 2 the same x, which shared memory
// hands to half a warp at once.
template <int M, int UNITS>
struct Tile {
  static constexpr int ROWS = 16;
  static constexpr int COLUMN_LANES = M == 8 ? 2 : M == 16 ? 4 : 8;
  static constexpr int K_LANES = 8 / COLUMN_LANES;
  static constexpr int COLUMNS = M / COLUMN_LANES;  // of a thread
  static constexpr int CHUNK = 8;                    // vectors
  static constexpr int PAD = K_LANES;                // vectors: rows that are read together lie in different banks
  static constexpr int SUMS = 4 * COLUMNS * 32;      // of a warp

  __host__ __device__ static constexpr int stride(int K) {  // numbers from one row of w to the next
    return ((K + CHUNK * VECTOR - 1) / (CHUNK * VECTOR) * CHUNK + PAD) * VECTOR;
  }
  __host__ __device__ static constexpr int region() {  // bytes of a warp
    return ROWS * (CHUNK + PAD) * 16 > SUMS * (int)sizeof(Wide) ? ROWS * (CHUNK + PAD) * 16 : SUMS * (int)sizeof(Wide);
  }
  __device__ static int place(int m, int k, int K) { return m * stride(K) + k; }  // of w[m][k]

  __device__ static void multiply(const Real* w, const Real* x, int n, int K, unsigned char* region_of_warp) {
    if (!rows_start_at_vectors(x, K))
      multiply<false, 4>(w, x, n, K, region_of_warp);
    else if (n > 4)
      multiply<true, 4>(w, x, n, K, region_of_warp);
    else
      multiply<true, 1>(w, x, n, K, region_of_warp);
  }

  // QUADS: how many times four rows there are at most. The order of a sum does not depend on it.
  template <bool WHOLE, int QUADS>
  __device__ static void multiply(const Real* w, const Real* x, int n, int K, unsigned char* region_of_warp) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row_lane = (lane & 1) | (lane >> 3 & 2);
    const int column_lane = (lane >> 1 & 7) % COLUMN_LANES, k_lane = (lane >> 1 & 7) / COLUMN_LANES;
    const int chunks = (K + CHUNK * VECTOR - 1) / (CHUNK * VECTOR);
    int4* staged = reinterpret_cast<int4*>(region_of_warp);  // [4 QUADS][CHUNK + PAD]
    int4 next[QUADS];
    Wide sum[QUADS][COLUMNS] = {};

    auto fetch = [&](int chunk) {
#pragma unroll
      for (int i = 0; i < QUADS; ++i)
        next[i] = vector_of<WHOLE>(x, lane / CHUNK + 4 * i, (chunk * CHUNK + lane % CHUNK) * VECTOR, n, K);
    };
    fetch(warp);
    for (int chunk = warp; chunk < chunks; chunk += WARPS) {
      __syncwarp();
#pragma unroll
      for (int i = 0; i < QUADS; ++i) staged[(lane / CHUNK + 4 * i) * (CHUNK + PAD) + lane % CHUNK] = next[i];
      fetch(chunk + WARPS);  // on its way while this chunk is summed
      __syncwarp();
#pragma unroll(WHOLE ? CHUNK : 1)
      for (int v = 0; v < CHUNK; v += K_LANES) {
        Vector xs[QUADS];
#pragma unroll
        for (int i = 0; i < QUADS; ++i)
          xs[i] = *reinterpret_cast<const Vector*>(staged + (row_lane + 4 * i) * (CHUNK + PAD) + v + k_lane);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
          const int m = column_lane + COLUMN_LANES * j;
          const Vector ws = *reinterpret_cast<const Vector*>(w + place(m, (chunk * CHUNK + v + k_lane) * VECTOR, K));
#pragma unroll
          for (int e = 0; e < VECTOR; ++e)
#pragma unroll
            for (int i = 0; i < QUADS; ++i) sum[i][j] += widen(xs[i].value[e]) * widen(ws.value[e]);
        }
      }
    }
    __syncwarp();
    Wide* sums = reinterpret_cast<Wide*>(region_of_warp);
#pragma unroll
    for (int i = 0; i < QUADS; ++i)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) sums[(i * COLUMNS + j) * 32 + lane] = sum[i][j];
  }

  // out[r][m], r < n: the warps' sums in the order of the warps, and of each warp in the order of its K lanes.
  __device__ static Wide sum(const unsigned char* regions, int r, int m) {
    const int q = r / 4 * COLUMNS + m / COLUMN_LANES, lane = (r & 1) | (r & 2) << 3 | m % COLUMN_LANES << 1;
    Wide out = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp)
#pragma unroll
      for (int k_lane = 0; k_lane < K_LANES; ++k_lane)
        out += reinterpret_cast<const Wide*>(regions + warp * region())[q * 32 + lane + (k_lane * COLUMN_LANES << 1)];
    return out;
  }
};
#endif

// The slice of w of one block: G rows for each of its hidden units, 8 or 16 (`units`).
template <int G>
struct Slice {
  static constexpr int BATCH = 8;  // vectors of w_hh that a thread has on their way when the slice is loaded
  typedef Tile<8 * G, 8> Of8;
  typedef Tile<16 * G, 16> Of16;

  Real* w;
  unsigned char* regions;
  int units, K;

  // memory: shared, as many bytes as minirnn.kernels.cuda.plan says
  __device__ Slice(unsigned char* memory, int units, int K) : w(reinterpret_cast<Real*>(memory)), units(units), K(K) {
    regions = memory + (size_t)G * units * width() * sizeof(Real);
  }

  __device__ int place(int m, int k) const { return units == 8 ? Of8::place(m, k, K) : Of16::place(m, k, K); }  // of w[m][k]
  __device__ int width() const { return units == 8 ? Of8::stride(K) : Of16::stride(K); }
  __device__ int rows() const { return units == 8 ? Of8::ROWS : Of16::ROWS; }  // of a tile

  // w[q units + u] = row first + u of gate q of w_hh (G H, H); K = H. Units from H on, and k from K on, are zero.
  __device__ void load_rows(const Real* w_hh, int first, int H) {
    if (rows_start_at_vectors(w_hh, H))
      load_rows<true>(w_hh, first, H);
    else
      load_rows<false>(w_hh, first, H);
  }

  template <bool WHOLE>
  __device__ void load_rows(const Real* w_hh, int first, int H) {
    const int vectors = width() / VECTOR;
    load(G * units * vectors, [&](int e) {
      const int m = e / vectors, j = first + m % units;
      return vector_of<WHOLE>(w_hh, m / units * H + j, e % vectors * VECTOR, j < H ? G * H : 0, H);
    }, [&](int e, int4 vector) {
      *reinterpret_cast<int4*>(w + place(e / vectors, e % vectors * VECTOR)) = vector;
    });
  }

  // w[u] = column first + u of w_hh (K, H), K = gates H; here G = 1. Units from H on, and k from K on, are zero.
  __device__ void load_columns(const Real* w_hh, int first, int H) {
    if (rows_start_at_vectors(w_hh, H))
      load_columns<true>(w_hh, first, H);
    else
      load_columns<false>(w_hh, first, H);
  }

  template <bool WHOLE>
  __device__ void load_columns(const Real* w_hh, int first, int H) {
    const int vectors = units / VECTOR;  // of a row of w_hh
    load(width() * vectors, [&](int e) {
      return vector_of<WHOLE>(w_hh, e / vectors, first + e % vectors * VECTOR, K, H);
    }, [&](int e, int4 vector) {
      Vector column;
      memcpy(&column, &vector, sizeof column);
#pragma unroll
      for (int u = 0; u < VECTOR; ++u) w[place(e % vectors * VECTOR + u, e / vectors)] = column.value[u];
    });
  }

  // put(e, get(e)) for e < count, shared out to the threads, BATCH at a time: none waits for the one before.
  template <class Get, class Put>
  __device__ void load(int count, Get get, Put put) {
    for (int first = threadIdx.x; first < count; first += BATCH * THREADS) {
      int4 batch[BATCH];
#pragma unroll
      for (int b = 0; b < BATCH; ++b)
        if (first + b * THREADS < count) batch[b] = get(first + b * THREADS);
#pragma unroll
      for (int b = 0; b < BATCH; ++b)
        if (first + b * THREADS < count) put(first + b * THREADS, batch[b]);
    }
  }

  // n rows of x, at most rows(), each K numbers, one after the other. All threads of the block take part; then `sum` gives the result.
  __device__ void multiply(const Real* x, int n) {
    const int warp = threadIdx.x / 32;
    __syncthreads();  // all have read the sums of the product before, and w and what this block wrote of x is there
    if (units == 8)
      Of8::multiply(w, x, n, K, regions + warp * Of8::region());
    else
      Of16::multiply(w, x, n, K, regions + warp * Of16::region());
    __syncthreads();
  }

  // out[r][m], r < n.
  __device__ Wide sum(int r, int m) const { return units == 8 ? Of8::sum(regions, r, m) : Of16::sum(regions, r, m); }
};
