// Row arithmetic of the packed layout on the device, what packed.py does with NumPy; and a sum over rows in one order.

#include "../cuda/types.cuh"
#include "../cuda/pointwise.cuh"

// The state that each row started from: row (t, n) gets state_{t-1} of sequence n, and state0 at t = 0.
//
// Geometry   a warp for each row, 8 to a block; grid (ceil(S / 8))
// Memory     2 S H numbers, and log2 T of `first` per row
// Floor      that traffic
//
// state    (S, H)     read
// state0   (N, H)     read
// first    (T + 1,)   read: the first row of every step, and S
// before   (S, H)     written
extern "C" __global__ void __launch_bounds__(256)
gather_previous(const Real* state, const Real* state0, const int* first, Real* before, int T, int H) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= first[T]) return;
  int t = 0, end = T;  // the step of the row: first[t] <= row < first[end]
  while (end - t > 1) {
    const int middle = (t + end) / 2;
    if (first[middle] <= row)
      t = middle;
    else
      end = middle;
  }
  const Real* from = t > 0 ? state + at(row - first[t] + first[t - 1], H) : state0 + at(row, H);
  for (int j = threadIdx.x % 32; j < H; j += 32) before[at(row, H) + j] = from[j];
}

// Sums over all rows, (2.9) of the GRU: out[j] = sum over s of x[s][skip + j].
//
// Geometry   1,024 threads for 32 columns: thread (lane, slot) adds the rows slot, slot + 32, ...; then the 32 sums of a column are added
//            in the order of the slots. grid (ceil(columns / 32))
// Memory     S columns numbers, once
// Floor      that traffic
//
// x        (S, width)   read
// out      (columns,)   written
extern "C" __global__ void __launch_bounds__(1024)
column_sum(const Real* x, Real* out, int S, int width, int skip, int columns) {
  __shared__ Wide sums[32][32];
  const int lane = threadIdx.x % 32, slot = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
  Wide sum = 0;
  if (j < columns)
    for (int s = slot; s < S; s += 32) sum += widen(x[at(s, width) + skip + j]);
  sums[slot][lane] = sum;
  __syncthreads();
  if (slot > 0 || j >= columns) return;
  for (int other = 1; other < 32; ++other) sum += sums[other][lane];
  out[j] = narrow(sum);
}
