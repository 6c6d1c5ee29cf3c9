// Layer normalisation of every row of x, with its weight and bias. The equations are those of numpy_.py.
//
// Geometry   forward, backward  1-D: a block for each row, of 32 to 256 threads by the row's length; threads take its elements in turn
//            columns            2-D: 32 columns by ROWS rows for each block of (32, 8); a thread adds every 8th row of its column
//            fold               1-D: a thread for each column
// Registers  the running sums
// Shared     32 numbers for the sums over a row; 2 x 8 x 32 for those over 8 threads of a column
// Memory     forward reads x from memory once, and twice more from cache, and writes y. backward reads x and dy, and writes dx; columns
//            reads both again: 7 S D sizeof(Real) bytes in all, 5 where the second reading of x and dy finds them in the L2 cache
// Work       some 5 operations per element forward, 15 backward
// Floor      the traffic
//
// Sums over a row depend on its length alone, those over the columns on S and D: trees and loops of one order, no atomics.

#include "../cuda/types.cuh"
#include "../cuda/rows.cuh"

#define ROWS 128  // of x, whose share of (6) and (7) one block of `columns` sums
#define LANES 8   // threads that share a column

// x             (S, D)  read
// weight, bias  (D,)    read; null for ones, and for zeros
// y             (S, D)  written
// mean, r       (S,)    written: of every row the mean, and 1 / standard deviation
extern "C" __global__ void __launch_bounds__(256)
layer_norm_forward(const Real* x, const Real* weight, const Real* bias, Real* y, Wide* mean, Wide* r, int D, Wide eps) {
  x += (long long)blockIdx.x * D;
  y += (long long)blockIdx.x * D;
  Wide sum = 0, squares = 0;
  for (int j = threadIdx.x; j < D; j += blockDim.x) sum += widen(x[j]);
  const Wide centre = over_block(sum, Add(), 0) / D;  // (1)
  for (int j = threadIdx.x; j < D; j += blockDim.x) {
    const Wide off = widen(x[j]) - centre;
    squares += off * off;
  }
  const Wide inverse = 1 / root(over_block(squares, Add(), 0) / D + eps);  // (2)
  for (int j = threadIdx.x; j < D; j += blockDim.x) {
    const Wide n = (widen(x[j]) - centre) * inverse;  // (3)
    y[j] = narrow(n * (weight ? widen(weight[j]) : Wide(1)) + (bias ? widen(bias[j]) : Wide(0)));  // (4)
  }
  if (threadIdx.x == 0) {
    mean[blockIdx.x] = centre;
    r[blockIdx.x] = inverse;
  }
}

// dy, x    (S, D)  read
// weight   (D,)    read; null for ones
// mean, r  (S,)    read: from forward
// dx       (S, D)  written
extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward(const Real* dy, const Real* x, const Real* weight, const Wide* mean, const Wide* r, Real* dx, int D) {
  dy += (long long)blockIdx.x * D;
  x += (long long)blockIdx.x * D;
  dx += (long long)blockIdx.x * D;
  const Wide centre = mean[blockIdx.x], inverse = r[blockIdx.x];
  Wide flat = 0, along = 0;
  for (int j = threadIdx.x; j < D; j += blockDim.x) {
    const Wide g = widen(dy[j]) * (weight ? widen(weight[j]) : Wide(1));
    flat += g;
    along += g * (widen(x[j]) - centre) * inverse;
  }
  flat = over_block(flat, Add(), 0) / D;
  along = over_block(along, Add(), 0) / D;
  for (int j = threadIdx.x; j < D; j += blockDim.x) {
    const Wide g = widen(dy[j]) * (weight ? widen(weight[j]) : Wide(1));
    const Wide n = (widen(x[j]) - centre) * inverse;  // (3)
    dx[j] = narrow(inverse * (g - flat - n * along));  // (5)
  }
}

// dy, x    (S, D)        read
// mean, r  (S,)          read: from forward
// parts    (2, P, D)     written, P = gridDim.y = ceil(S / ROWS): what ROWS rows add to dweight, and to dbias
extern "C" __global__ void __launch_bounds__(32 * LANES)
layer_norm_columns(const Real* dy, const Real* x, const Wide* mean, const Wide* r, Wide* parts, int S, int D) {
  __shared__ Wide sums[2][LANES][32];
  const int j = blockIdx.x * 32 + threadIdx.x, first = blockIdx.y * ROWS;
  Wide dweight = 0, dbias = 0;
  if (j < D)
    for (int s = first + threadIdx.y; s < S && s < first + ROWS; s += LANES) {
      const long long e = (long long)s * D + j;
      const Wide d = widen(dy[e]);
      dweight += d * (widen(x[e]) - mean[s]) * r[s];  // (6)
      dbias += d;  // (7)
    }
  sums[0][threadIdx.y][threadIdx.x] = dweight;
  sums[1][threadIdx.y][threadIdx.x] = dbias;
  __syncthreads();
  if (threadIdx.y > 1 || j >= D) return;
  Wide sum = 0;
  for (int lane = 0; lane < LANES; ++lane) sum += sums[threadIdx.y][lane][threadIdx.x];
  parts[((long long)threadIdx.y * gridDim.y + blockIdx.y) * D + j] = sum;
}

// parts          (2, P, D)  read: from columns
// dweight, dbias (D,)       written
extern "C" __global__ void __launch_bounds__(256)
layer_norm_fold(const Wide* parts, Real* dweight, Real* dbias, int P, int D) {
  const int j = blockIdx.x * blockDim.x + threadIdx.x;
  if (j >= D) return;
  Wide weight = 0, bias = 0;
  for (int p = 0; p < P; ++p) {
    weight += parts[(long long)p * D + j];
    bias += parts[((long long)P + p) * D + j];
  }
  dweight[j] = narrow(weight);  // (6)
  dbias[j] = narrow(bias);      // (7)
}
