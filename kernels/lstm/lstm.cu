// The LSTM recurrence in CUDA C++. Equation numbers are those of README.md in this folder; the names are those of numpy_.py.
//
// Step form        lstm_step_forward, lstm_step_backward[_tapped]: one launch a step beside a library product; any size
// Persistent form  lstm_persistent_forward, lstm_persistent_backward: one cooperative launch for the whole sequence
//
// Step form, one thread for each of the n H units of a step
//   Memory     forward reads z 4, a 4, c_t 1 and writes gates 4, c 1, c_t 1, h 1 numbers per unit; backward reads gates 4, c 1,
//              c_{t-1} 1, dh_t 1, dc_t 1, dh 1 (and dc 1) and writes dz 4, dc_t 1 (and the taps 2)
//   Floor      that traffic, beside the product: 8 n H^2 operations
//
// Persistent form, grid (ceil(H / units), groups of batch tiles), THREADS threads; all blocks on the device at once
//   Block      `units` hidden units, 8 or 16; of the tiles of 16 or 32 sequences, every gridDim.y-th
//   Shared     its slice of w_hh for the whole sequence: forward the 4 units rows of its gates, backward its columns; see slice.cuh
//   Registers  a tile of sums; then thread (r, u) owns unit u of row r of the tile
//   Global     c_t, dc_t (N, H) Wide, read and written by the one thread that owns them
//   Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 4, c_t 1, and writes gates 4, c 1,
//              c_t 1, h 1; backward reads dz_{t+1} (4 n H, by each) and per unit gates 4, c 1, c_{t-1} 1, dc_t 1, dh 1 (and dc 1), and
//              writes dz 4, dc_t 1 (and the taps 2). 8 n H^2 operations either way; one grid barrier, none where one block holds all units
//   Ahead      what a step reads besides x is asked for one step early, so that it comes from L2, and read before the product
//   Floor      the larger of 8 n H^2 operations at the device's rate, the slice read from shared memory, and x read from L2; plus a barrier

#include <cooperative_groups.h>

#include "../cuda/types.cuh"
#include "../cuda/pointwise.cuh"
#include "../cuda/slice.cuh"

// Unit j of one row, (1.2) to (1.7), from the pre-activations of (1.1) and c_{t-1}. Returns c_t.
__device__ __forceinline__ Wide forward_unit(Wide a_i, Wide a_f, Wide a_g, Wide a_o, Wide c_before,  //
                                             int row, int j, int H, Real* h, Real* c, Real* gates) {
  const Wide i = sigmoid(a_i);            // (1.2)
  const Wide f = sigmoid(a_f);            // (1.3)
  const Wide g = tangent(a_g);            // (1.4)
  const Wide o = sigmoid(a_o);            // (1.5)
  const Wide c_t = f * c_before + i * g;  // (1.6)
  const Wide h_t = o * tangent(c_t);      // (1.7)
  Real* gates_t = gates + at(row, 4 * H) + j;
  gates_t[0 * H] = narrow(i);
  gates_t[1 * H] = narrow(f);
  gates_t[2 * H] = narrow(g);
  gates_t[3 * H] = narrow(o);
  c[at(row, H) + j] = narrow(c_t);
  h[at(row, H) + j] = narrow(h_t);
  return c_t;
}

// What unit j of one row needs on its way back besides dh_t and dc_t: the tape, and what the loss reads from the row.
struct Kept {
  Wide i, f, g, o, tanh_c, c_before, dh, dc;
};

__device__ __forceinline__ Kept kept_of(int row, int j, int H, const Real* gates, const Real* c, Real c_before,  //
                                        const Real* dh, const Real* dc) {
  const size_t unit = at(row, H) + j;
  const Real* gates_t = gates + at(row, 4 * H) + j;
  Kept kept;
  kept.i = widen(gates_t[0 * H]);
  kept.f = widen(gates_t[1 * H]);
  kept.g = widen(gates_t[2 * H]);
  kept.o = widen(gates_t[3 * H]);
  kept.tanh_c = tangent(widen(c[unit]));
  kept.c_before = widen(c_before);
  kept.dh = dh ? widen(dh[unit]) : Wide(0);
  kept.dc = dc ? widen(dc[unit]) : Wide(0);
  return kept;
}

// Unit j of one row, (2.2) to (2.9), from the dh_t and dc_t of (2.1). Returns dc_{t-1}.
__device__ __forceinline__ Wide backward_unit(Wide dh_t, Wide dc_t, const Kept& kept, int row, int j, int H, Real* dz,  //
                                              Real* dh_tap, Real* dc_tap) {
  const Wide i = kept.i, f = kept.f, g = kept.g, o = kept.o, tanh_c = kept.tanh_c;
  dh_t += kept.dh;                                       // (2.2)
  dc_t += kept.dc;                                       // (2.3)
  const Wide da_o = dh_t * tanh_c * o * (1 - o);         // (2.4)
  dc_t += dh_t * o * (1 - tanh_c * tanh_c);              // (2.5)
  if (dh_tap) {
    dh_tap[at(row, H) + j] = narrow(dh_t);
    dc_tap[at(row, H) + j] = narrow(dc_t);
  }
  const Wide da_i = dc_t * g * i * (1 - i);              // (2.6)
  const Wide da_f = dc_t * kept.c_before * f * (1 - f);  // (2.7)
  const Wide da_g = dc_t * i * (1 - g * g);              // (2.8)
  Real* dz_t = dz + at(row, 4 * H) + j;
  dz_t[0 * H] = narrow(da_i);
  dz_t[1 * H] = narrow(da_f);
  dz_t[2 * H] = narrow(da_g);
  dz_t[3 * H] = narrow(da_o);
  return dc_t * f;  // (2.9)
}

// Step t, after a = h_{t-1} w_hh^T.
//
// z        (S, 4H)    read
// a        (N, 4H)    read, rows below n: the product, alive for this step
// c_t      (N, H)     Wide; read and written, rows below n: c_{t-1}, then c_t; alive for the sequence
// h, c     (S, H)     written, rows of this step
// gates    (S, 4H)    written, rows of this step
// h_n      (N, H)     written, rows of the sequences that end here
// start    first row of this step;  n  its rows;  going_on  rows of the step after, 0 after the last
extern "C" __global__ void __launch_bounds__(256)
lstm_step_forward(const Real* z, const Real* a, Wide* c_t, Real* h, Real* c, Real* gates, Real* h_n,  //
                  int start, int n, int going_on, int H) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const int sequence = e / H, j = e % H, row = start + sequence;
  const Real* z_t = z + at(row, 4 * H) + j;
  const Real* a_t = a + at(sequence, 4 * H) + j;
  const Wide a_i = widen(z_t[0 * H]) + widen(a_t[0 * H]);
  const Wide a_f = widen(z_t[1 * H]) + widen(a_t[1 * H]);
  const Wide a_g = widen(z_t[2 * H]) + widen(a_t[2 * H]);
  const Wide a_o = widen(z_t[3 * H]) + widen(a_t[3 * H]);
  c_t[e] = forward_unit(a_i, a_f, a_g, a_o, c_t[e], row, j, H, h, c, gates);
  if (sequence >= going_on) h_n[e] = h[at(row, H) + j];
}

// Step t, before dh_{t-1} = dz_t w_hh.
//
// gates    (S, 4H)    read
// c        (S, H)     read
// c0       (N, H)     read
// dh, dc   (S, H)     read, or null for zero
// dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
// dc_t     (N, H)     Wide; read and written, rows below n: dL/dc_t, then dL/dc_{t-1}; alive for the sequence
// dz       (S, 4H)    written, rows of this step
// dh_tap, dc_tap  (S, H)  written, rows of this step: the whole dL/dh_t of (2.2) and dL/dc_t of (2.5)
// start    first row of this step;  before  first row of the step before, -1 where c0 is before;  n  rows of this step
__device__ __forceinline__ void step_backward(const Real* gates, const Real* c, const Real* c0, const Real* dh, const Real* dc,  //
                                              const Real* dh_t, Wide* dc_t, Real* dz, Real* dh_tap, Real* dc_tap,               //
                                              int start, int before, int n, int H) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const int sequence = e / H, j = e % H;
  const Real c_before = before < 0 ? c0[e] : c[at(before, H) + e];
  const Kept kept = kept_of(start + sequence, j, H, gates, c, c_before, dh, dc);
  dc_t[e] = backward_unit(widen(dh_t[e]), dc_t[e], kept, start + sequence, j, H, dz, dh_tap, dc_tap);
}

extern "C" __global__ void __launch_bounds__(256)
lstm_step_backward(const Real* gates, const Real* c, const Real* c0, const Real* dh, const Real* dc, const Real* dh_t, Wide* dc_t,  //
                   Real* dz, int start, int before, int n, int H) {
  step_backward(gates, c, c0, dh, dc, dh_t, dc_t, dz, nullptr, nullptr, start, before, n, H);
}

// With taps, in a kernel of its own: so the other has the registers of one without.
extern "C" __global__ void __launch_bounds__(256)
lstm_step_backward_tapped(const Real* gates, const Real* c, const Real* c0, const Real* dh, const Real* dc, const Real* dh_t,  //
                          Wide* dc_t, Real* dz, Real* dh_tap, Real* dc_tap, int start, int before, int n, int H) {
  step_backward(gates, c, c0, dh, dc, dh_t, dc_t, dz, dh_tap, dc_tap, start, before, n, H);
}

// All steps forward.
//
// z        (S, 4H)    read
// w_hh     (4H, H)    read once
// h0       (N, H)     read
// c_t      (N, H)     Wide; c0 on entry, c_n on return
// first    (T + 1,)   read: the first row of every step, and S
// h, c     (S, H)     written; h is read one step later by all blocks
// gates    (S, 4H)    written
// h_n      (N, H)     written
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_persistent_forward(const Real* z, const Real* w_hh, const Real* h0, Wide* c_t, const int* first,  //
                        Real* h, Real* c, Real* gates, Real* h_n, int T, int H, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int r = threadIdx.x / units, u = threadIdx.x % units, j = blockIdx.x * units + u;
  Slice<4> w(memory, units, H);
  w.load_rows(w_hh, blockIdx.x * units, H);

  for (int t = 0; t < T; ++t) {
    const int start = first[t], n = first[t + 1] - start, going_on = t + 1 < T ? first[t + 2] - first[t + 1] : 0;
    const Real* h_before = t > 0 ? h + at(first[t - 1], H) : h0;
    for (int tile = w.rows() * blockIdx.y; tile < n; tile += w.rows() * gridDim.y) {
      const int sequence = tile + r, row = start + sequence;
      const bool mine = r < w.rows() && sequence < n && j < H;
      Wide a_i = 0, a_f = 0, a_g = 0, a_o = 0, c_before = 0;
      if (mine) {  // on their way during the product
        const Real* z_t = z + at(row, 4 * H) + j;
        a_i = widen(z_t[0 * H]);
        a_f = widen(z_t[1 * H]);
        a_g = widen(z_t[2 * H]);
        a_o = widen(z_t[3 * H]);
        c_before = c_t[at(sequence, H) + j];
        if (sequence < going_on)
          for (int gate = 0; gate < 4; ++gate) prefetch(z_t + at(n, 4 * H) + gate * H);  // of step t + 1
      }
      w.multiply(h_before + at(tile, H), min(w.rows(), n - tile));  // (1.1)
      if (mine) {
        a_i += w.sum(r, 0 * units + u);
        a_f += w.sum(r, 1 * units + u);
        a_g += w.sum(r, 2 * units + u);
        a_o += w.sum(r, 3 * units + u);
        c_t[at(sequence, H) + j] = forward_unit(a_i, a_f, a_g, a_o, c_before, row, j, H, h, c, gates);
        if (sequence >= going_on) h_n[at(sequence, H) + j] = h[at(row, H) + j];
      }
    }
    if (t + 1 < T && gridDim.x > 1) cooperative_groups::this_grid().sync();  // h_t is there for all
  }
}

// All steps backward.
//
// gates    (S, 4H)    read
// c        (S, H)     read
// c0       (N, H)     read
// w_hh     (4H, H)    read once
// dh, dc   (S, H)     read, or null for zero
// dh_n     (N, H)     read, or null for zero
// dc_t     (N, H)     Wide; dc_n on entry, dc0 on return
// first    (T + 1,)   read: the first row of every step, and S
// dz       (S, 4H)    written, and read one step later by all blocks
// dh0      (N, H)     written
// dh_tap, dc_tap  (S, H)  written: the whole dL/dh_t of (2.2) and dL/dc_t of (2.5); or both null
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
lstm_persistent_backward(const Real* gates, const Real* c, const Real* c0, const Real* w_hh,              //
                         const Real* dh, const Real* dc, const Real* dh_n, Wide* dc_t, const int* first,  //
                         Real* dz, Real* dh0, Real* dh_tap, Real* dc_tap, int T, int H, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int r = threadIdx.x / units, u = threadIdx.x % units, j = blockIdx.x * units + u;
  Slice<1> w(memory, units, 4 * H);
  w.load_columns(w_hh, blockIdx.x * units, H);

  for (int t = T - 1; t >= -1; --t) {  // at t = -1 dh0 is left to do
    const int after = first[t + 1], begun = t + 1 < T ? first[t + 2] - after : 0;  // step t + 1: the sequences that are on their way back
    const int start = t >= 0 ? first[t] : 0, n = t >= 0 ? after - start : begun;
    const Real* c_before = t > 0 ? c + at(first[t - 1], H) : c0;
    for (int tile = w.rows() * blockIdx.y; tile < n; tile += w.rows() * gridDim.y) {
      const int sequence = tile + r, row = start + sequence;
      const bool mine = r < w.rows() && sequence < n && j < H;
      const size_t unit = at(sequence, H) + j;
      Kept kept = {};
      Wide dh_t = 0, dc_after = 0;
      if (mine && t >= 0) {  // on their way during the product
        kept = kept_of(row, j, H, gates, c, c_before[unit], dh, dc);
        dc_after = dc_t[unit];
        if (sequence >= begun && dh_n) dh_t = widen(dh_n[unit]);  // (2.1)
        if (t > 0) {                                              // of step t - 1
          const int earlier = first[t - 1] + sequence;
          for (int gate = 0; gate < 4; ++gate) prefetch(gates + at(earlier, 4 * H) + gate * H + j);
          if (t > 1) prefetch(c + at(first[t - 2] + sequence, H) + j);
          if (dh) prefetch(dh + at(earlier, H) + j);
          if (dc) prefetch(dc + at(earlier, H) + j);
        }
      }
      if (tile < begun) w.multiply(dz + at(after + tile, 4 * H), min(w.rows(), begun - tile));  // (2.10)
      if (!mine) continue;
      if (sequence < begun) dh_t = w.sum(r, u);
      if (t >= 0)
        dc_t[unit] = backward_unit(dh_t, dc_after, kept, row, j, H, dz, dh_tap, dc_tap);
      else
        dh0[unit] = narrow(dh_t);  // (2.12)
    }
    if (t >= 0 && gridDim.x > 1) cooperative_groups::this_grid().sync();  // dz_t is there for all
  }
}
