// The gradient of a table of rows that were looked up, (1) of numpy_.py: dw_v = sum of the dy_s with ids_s = v, in the order of s.
//
// The places s come sorted by id, and in their own order where ids are equal. A run is the places of one id.
//
// Geometry   2-D: a block for each place and each blockDim.x columns; blocks at which no run begins end at once
// Registers  one sum per thread, and AHEAD rows on their way; no shared memory
// Memory     dy is read once, each row that is named in dw written once: (S + rows named) D sizeof(Real) bytes, and 24 S of places and ids
// Work       S D additions
// Floor      the traffic. A run of R rows takes R / AHEAD times two latencies of memory, whatever the rest of the grid does
//
// No atomics: dw_v belongs to the block at which the run of v begins.

#include "../cuda/types.cuh"

#define AHEAD 16  // rows of a run that are fetched together

// dy      (S, D)  read
// places  (S,)    read: s, sorted by id
// ids     (S,)    read: ids[places], ascending
// dw      (V, D)  written where an id names the row; the caller has set all of it to 0
extern "C" __global__ void __launch_bounds__(256)
embedding_backward(const Real* dy, const long long* places, const int* ids, Real* dw, int S, int D) {
  const int first = blockIdx.x, v = ids[first];
  const int d = blockIdx.y * blockDim.x + threadIdx.x;
  if (first > 0 && ids[first - 1] == v || d >= D) return;
  Wide sum = 0;
  for (int n = first, more = AHEAD; more == AHEAD; n += AHEAD) {
    more = 0;
#pragma unroll
    for (int a = 0; a < AHEAD; ++a) more += n + a < S && ids[n + a] == v;  // of the next ones, how many: they are sorted
    Wide row[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; ++a) row[a] = a < more ? widen(dy[places[n + a] * D + d]) : Wide(0);
#pragma unroll
    for (int a = 0; a < AHEAD; ++a) sum += row[a];  // (1), and zeros behind the run's end
  }
  dw[(long long)v * D + d] = narrow(sum);
}
