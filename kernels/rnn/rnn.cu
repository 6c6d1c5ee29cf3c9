// The plain recurrence in CUDA C++. Equation numbers are those of README.md in this folder; the names are those of numpy_.py.
//
// Step form        rnn_step_forward, rnn_step_backward[_tapped]: one launch a step beside a library product; any size
// Persistent form  rnn_persistent_forward, rnn_persistent_backward: one cooperative launch for the whole sequence
//
// Step form, one thread for each of the n H units of a step
//   Memory     forward reads z 1, a 1 and writes h 1 numbers per unit; backward reads h 1, dh 1, dh_t 1 and writes dz 1 (and the tap 1)
//   Floor      that traffic, beside the product: 2 n H^2 operations
//
// Persistent form, grid (ceil(H / units), groups of batch tiles), THREADS threads; all blocks on the device at once
//   Block      `units` hidden units, 8 or 16; of the tiles of 16 or 32 sequences, every gridDim.y-th
//   Shared     its slice of w_hh for the whole sequence: forward its rows, backward its columns; see slice.cuh
//   Registers  a tile of sums; then thread (r, u) owns unit u of row r of the tile
//   Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 1, and writes h 1; backward reads
//              dz_{t+1} (n H, by each) and per unit h 1, dh 1, and writes dz 1 (and the tap 1). 2 n H^2 operations either way;
//              one grid barrier, none where one block holds all units
//   Ahead      what a step reads besides x is asked for one step early, so that it comes from L2, and read before the product
//   Floor      the larger of 2 n H^2 operations at the device's rate, the slice read from shared memory, and x read from L2; plus a barrier

#include <cooperative_groups.h>

#include "../cuda/types.cuh"
#include "../cuda/pointwise.cuh"
#include "../cuda/slice.cuh"

// (1.2) A NaN stays one.
__device__ __forceinline__ Wide phi(Wide x, int relu) { return relu ? (x <= 0 ? Wide(0) : x) : tangent(x); }

// (2.3) dh_t phi', from the value h_t of phi.
__device__ __forceinline__ Wide through_phi(Wide dh_t, Wide h_t, int relu) {
  return relu ? (h_t <= 0 ? Wide(0) : dh_t) : dh_t * (1 - h_t * h_t);
}

// Step t, after a = h_{t-1} w_hh^T.
//
// z        (S, H)     read
// a        (N, H)     read, rows below n: the product, alive for this step
// h        (S, H)     written, rows of this step
// h_n      (N, H)     written, rows of the sequences that end here
// start    first row of this step;  n  its rows;  going_on  rows of the step after, 0 after the last
// relu     0 for tanh
extern "C" __global__ void __launch_bounds__(256)
rnn_step_forward(const Real* z, const Real* a, Real* h, Real* h_n, int start, int n, int going_on, int H, int relu) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const size_t unit = at(start, H) + e;
  const Real h_t = narrow(phi(widen(z[unit]) + widen(a[e]), relu));  // (1.2)
  h[unit] = h_t;
  if (e >= (long long)going_on * H) h_n[e] = h_t;
}

// Step t, before dh_{t-1} = dz_t w_hh.
//
// h        (S, H)     read
// dh       (S, H)     read, or null for zero
// dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
// dz       (S, H)     written, rows of this step
// dh_tap   (S, H)     written, rows of this step: the whole dL/dh_t of (2.2)
// start    first row of this step;  n  its rows
// relu     0 for tanh
__device__ __forceinline__ void step_backward(const Real* h, const Real* dh, const Real* dh_t, Real* dz, Real* dh_tap,  //
                                              int start, int n, int H, int relu) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const size_t unit = at(start, H) + e;
  const Wide whole = widen(dh_t[e]) + (dh ? widen(dh[unit]) : Wide(0));  // (2.2)
  if (dh_tap) dh_tap[unit] = narrow(whole);
  dz[unit] = narrow(through_phi(whole, widen(h[unit]), relu));
}

extern "C" __global__ void __launch_bounds__(256)
rnn_step_backward(const Real* h, const Real* dh, const Real* dh_t, Real* dz, int start, int n, int H, int relu) {
  step_backward(h, dh, dh_t, dz, nullptr, start, n, H, relu);
}

// With taps, in a kernel of its own: so the other has the registers of one without.
extern "C" __global__ void __launch_bounds__(256)
rnn_step_backward_tapped(const Real* h, const Real* dh, const Real* dh_t, Real* dz, Real* dh_tap, int start, int n, int H, int relu) {
  step_backward(h, dh, dh_t, dz, dh_tap, start, n, H, relu);
}

// All steps forward.
//
// z        (S, H)     read
// w_hh     (H, H)     read once
// h0       (N, H)     read
// first    (T + 1,)   read: the first row of every step, and S
// h        (S, H)     written, and read one step later by all blocks
// h_n      (N, H)     written
// relu     0 for tanh
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_persistent_forward(const Real* z, const Real* w_hh, const Real* h0, const int* first, Real* h, Real* h_n,  //
                       int T, int H, int relu, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int r = threadIdx.x / units, u = threadIdx.x % units, j = blockIdx.x * units + u;
  Slice<1> w(memory, units, H);
  w.load_rows(w_hh, blockIdx.x * units, H);

  for (int t = 0; t < T; ++t) {
    const int start = first[t], n = first[t + 1] - start, going_on = t + 1 < T ? first[t + 2] - first[t + 1] : 0;
    const Real* h_before = t > 0 ? h + at(first[t - 1], H) : h0;
    for (int tile = w.rows() * blockIdx.y; tile < n; tile += w.rows() * gridDim.y) {
      const int sequence = tile + r;
      const bool mine = r < w.rows() && sequence < n && j < H;
      const size_t unit = at(start + sequence, H) + j;
      const Wide z_t = mine ? widen(z[unit]) : Wide(0);                // on its way during the product
      if (mine && sequence < going_on) prefetch(z + unit + at(n, H));  // of step t + 1
      w.multiply(h_before + at(tile, H), min(w.rows(), n - tile));     // (1.1)
      if (!mine) continue;
      const Real h_t = narrow(phi(z_t + w.sum(r, u), relu));  // (1.2)
      h[unit] = h_t;
      if (sequence >= going_on) h_n[at(sequence, H) + j] = h_t;
    }
    if (t + 1 < T && gridDim.x > 1) cooperative_groups::this_grid().sync();  // h_t is there for all
  }
}

// All steps backward.
//
// h        (S, H)     read
// w_hh     (H, H)     read once
// dh       (S, H)     read, or null for zero
// dh_n     (N, H)     read, or null for zero
// first    (T + 1,)   read: the first row of every step, and S
// dz       (S, H)     written, and read one step later by all blocks
// dh0      (N, H)     written
// dh_tap   (S, H)     written: the whole dL/dh_t of (2.2); or null
// relu     0 for tanh
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
rnn_persistent_backward(const Real* h, const Real* w_hh, const Real* dh, const Real* dh_n, const int* first,  //
                        Real* dz, Real* dh0, Real* dh_tap, int T, int H, int relu, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int r = threadIdx.x / units, u = threadIdx.x % units, j = blockIdx.x * units + u;
  Slice<1> w(memory, units, H);
  w.load_columns(w_hh, blockIdx.x * units, H);

  for (int t = T - 1; t >= -1; --t) {  // at t = -1 dh0 is left to do
    const int after = first[t + 1], begun = t + 1 < T ? first[t + 2] - after : 0;  // step t + 1: the sequences that are on their way back
    const int start = t >= 0 ? first[t] : 0, n = t >= 0 ? after - start : begun;
    for (int tile = w.rows() * blockIdx.y; tile < n; tile += w.rows() * gridDim.y) {
      const int sequence = tile + r;
      const size_t e = at(sequence, H) + j, unit = at(start, H) + e;
      const bool mine = r < w.rows() && sequence < n && j < H;
      Wide dh_t = 0, from_loss = 0, h_t = 0;
      if (mine && t >= 0) {  // on their way during the product
        h_t = widen(h[unit]);
        if (dh) from_loss = widen(dh[unit]);
        if (sequence >= begun && dh_n) dh_t = widen(dh_n[e]);  // (2.1)
        if (t > 0) {                                           // of step t - 1
          prefetch(h + at(first[t - 1], H) + e);
          if (dh) prefetch(dh + at(first[t - 1], H) + e);
        }
      }
      if (tile < begun) w.multiply(dz + at(after + tile, H), min(w.rows(), begun - tile));  // (2.4)
      if (!mine) continue;
      if (sequence < begun) dh_t = w.sum(r, u);
      if (t >= 0) {
        const Wide whole = dh_t + from_loss;  // (2.2)
        if (dh_tap) dh_tap[unit] = narrow(whole);
        dz[unit] = narrow(through_phi(whole, h_t, relu));  // (2.3)
      } else
        dh0[e] = narrow(dh_t);  // (2.6)
    }
    if (t >= 0 && gridDim.x > 1) cooperative_groups::this_grid().sync();  // dz_t is there for all
  }
}
