// The GRU recurrence in CUDA C++. Equation numbers are those of README.md in this folder; the names are those of numpy_.py.
//
// Step form        gru_step_forward, gru_step_backward[_tapped]: one launch a step beside a library product; any size
// Persistent form  gru_persistent_forward, gru_persistent_backward: one cooperative launch for the whole sequence
//
// Step form, one thread for each of the n H units of a step
//   Memory     forward reads z 3, a 3, b_hn, h_t 1 and writes gates 3, hn 1, h 1, h_t 1 numbers per unit; backward reads gates 3, hn 1,
//              h_{t-1} 1, dh 1, dh_t 1, product 1 and writes dz 3, da 3, dh_t 1 (and the tap 1)
//   Floor      that traffic, beside the product: 6 n H^2 operations
//
// Persistent form, grid (ceil(H / units), groups of batch tiles), THREADS threads; all blocks on the device at once
//   Block      `units` hidden units, 8 or 16; of the tiles of 16 or 32 sequences, every gridDim.y-th
//   Shared     its slice of w_hh for the whole sequence: forward the 3 units rows of its gates, backward its columns; see slice.cuh
//   Registers  a tile of sums; then thread (row of the tile, unit) owns one unit of one row
//   Global     h_t, dh_t (N, H) Wide, read and written by the one thread that owns them
//   Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 3, h_t 1, and writes gates 3, hn 1, h 1,
//              h_t 1; backward reads da_{t+1} (3 n H, by each) and per unit gates 3, hn 1, h_{t-1} 1, dh 1, dh_t 1, and writes dz 3, da 3,
//              dh_t 1 (and the tap 1). 6 n H^2 operations either way; one grid barrier, none where one block holds all units
//   Ahead      what a step reads besides x is asked for one step early, so that it comes from L2, and read before the product
//   Floor      the larger of 6 n H^2 operations at the device's rate, the slice read from shared memory, and x read from L2; plus a barrier

#include <cooperative_groups.h>

#include "../cuda/types.cuh"
#include "../cuda/pointwise.cuh"
#include "../cuda/slice.cuh"

// Unit j of one row, (1.2) to (1.6), from the projection z, the product a of (1.1) and h_{t-1}. Returns h_t.
__device__ __forceinline__ Wide forward_unit(Wide z_r, Wide z_u, Wide z_n, Wide a_r, Wide a_u, Wide a_n, Wide b_hn, Wide h_before,  //
                                             int row, int j, int H, Real* h, Real* gates, Real* hn) {
  const Wide r = sigmoid(z_r + a_r);        // (1.2)
  const Wide u = sigmoid(z_u + a_u);        // (1.3)
  const Wide hn_t = a_n + b_hn;             // (1.4)
  const Wide n = tangent(z_n + r * hn_t);   // (1.5)
  const Wide h_t = n + u * (h_before - n);  // (1.6)
  Real* gates_t = gates + at(row, 3 * H) + j;
  gates_t[0 * H] = narrow(r);
  gates_t[1 * H] = narrow(u);
  gates_t[2 * H] = narrow(n);
  hn[at(row, H) + j] = narrow(hn_t);
  h[at(row, H) + j] = narrow(h_t);
  return h_t;
}

// What unit j of one row needs on its way back besides dh_t: the tape, and what the loss reads from the row.
struct Kept {
  Wide r, u, n, hn, h_before, dh;
};

__device__ __forceinline__ Kept kept_of(int row, int j, int H, const Real* gates, const Real* hn, Real h_before, const Real* dh) {
  const Real* gates_t = gates + at(row, 3 * H) + j;
  Kept kept;
  kept.r = widen(gates_t[0 * H]);
  kept.u = widen(gates_t[1 * H]);
  kept.n = widen(gates_t[2 * H]);
  kept.hn = widen(hn[at(row, H) + j]);
  kept.h_before = widen(h_before);
  kept.dh = dh ? widen(dh[at(row, H) + j]) : Wide(0);
  return kept;
}

// Unit j of one row, (2.2) to (2.6), from the dh_t of (2.1). Returns dh_t u, the first half of (2.7).
__device__ __forceinline__ Wide backward_unit(Wide dh_t, const Kept& kept, int row, int j, int H, Real* dz, Real* da, Real* dh_tap) {
  const Wide r = kept.r, u = kept.u, n = kept.n;
  dh_t += kept.dh;                                             // (2.2)
  if (dh_tap) dh_tap[at(row, H) + j] = narrow(dh_t);
  const Wide dz_n = dh_t * (1 - u) * (1 - n * n);              // (2.3)
  const Wide dz_u = dh_t * (kept.h_before - n) * u * (1 - u);  // (2.4)
  const Wide dz_r = dz_n * kept.hn * r * (1 - r);              // (2.5)
  Real* dz_t = dz + at(row, 3 * H) + j;
  dz_t[0 * H] = narrow(dz_r);
  dz_t[1 * H] = narrow(dz_u);
  dz_t[2 * H] = narrow(dz_n);
  Real* da_t = da + at(row, 3 * H) + j;
  da_t[0 * H] = narrow(dz_r);
  da_t[1 * H] = narrow(dz_u);
  da_t[2 * H] = narrow(dz_n * r);  // (2.6)
  return dh_t * u;
}

// Step t, after a = h_{t-1} w_hh^T.
//
// z        (S, 3H)    read
// a        (N, 3H)    read, rows below n: the product, alive for this step
// b_hn     (H,)       read
// h_t      (N, H)     Wide; read and written, rows below n: h_{t-1}, then h_t; alive for the sequence
// h, hn    (S, H)     written, rows of this step
// gates    (S, 3H)    written, rows of this step
// start    first row of this step;  n  its rows
extern "C" __global__ void __launch_bounds__(256)
gru_step_forward(const Real* z, const Real* a, const Real* b_hn, Wide* h_t, Real* h, Real* gates, Real* hn,  //
                 int start, int n, int H) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const int sequence = e / H, j = e % H, row = start + sequence;
  const Real* z_t = z + at(row, 3 * H) + j;
  const Real* a_t = a + at(sequence, 3 * H) + j;
  const Wide z_r = widen(z_t[0 * H]), z_u = widen(z_t[1 * H]), z_n = widen(z_t[2 * H]);
  const Wide a_r = widen(a_t[0 * H]), a_u = widen(a_t[1 * H]), a_n = widen(a_t[2 * H]);
  h_t[e] = forward_unit(z_r, z_u, z_n, a_r, a_u, a_n, widen(b_hn[j]), h_t[e], row, j, H, h, gates, hn);
}

// Step t, before product = da_t w_hh.
//
// gates    (S, 3H)    read
// h, hn    (S, H)     read
// h0       (N, H)     read
// dh       (S, H)     read, or null for zero
// product  (N, H)     read, rows below begun: da_{t+1} w_hh, the second half of (2.7); alive from step to step
// dh_t     (N, H)     Wide; read and written, rows below n: dh_n where a sequence begins its way back, then dh_t u; alive for the sequence
// dz       (S, 3H)    written, rows of this step
// da       (S, 3H)    written, rows of this step
// dh_tap   (S, H)     written, rows of this step: the whole dL/dh_t of (2.2)
// start    first row of this step;  before  first row of the step before, -1 where h0 is before;  n  rows of this step
// begun    rows of step t + 1: the sequences that are on their way back
__device__ __forceinline__ void step_backward(const Real* gates, const Real* h, const Real* hn, const Real* h0, const Real* dh,  //
                                              const Real* product, Wide* dh_t, Real* dz, Real* da, Real* dh_tap,                //
                                              int start, int before, int n, int begun, int H) {
  const long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= (long long)n * H) return;
  const int sequence = e / H, j = e % H;
  const Real h_before = before < 0 ? h0[e] : h[at(before, H) + e];
  const Kept kept = kept_of(start + sequence, j, H, gates, hn, h_before, dh);
  const Wide whole = dh_t[e] + (sequence < begun ? widen(product[e]) : Wide(0));  // (2.7) or (2.1)
  dh_t[e] = backward_unit(whole, kept, start + sequence, j, H, dz, da, dh_tap);
}

extern "C" __global__ void __launch_bounds__(256)
gru_step_backward(const Real* gates, const Real* h, const Real* hn, const Real* h0, const Real* dh, const Real* product,  //
                  Wide* dh_t, Real* dz, Real* da, int start, int before, int n, int begun, int H) {
  step_backward(gates, h, hn, h0, dh, product, dh_t, dz, da, nullptr, start, before, n, begun, H);
}

// With taps, in a kernel of its own: so the other has the registers of one without.
extern "C" __global__ void __launch_bounds__(256)
gru_step_backward_tapped(const Real* gates, const Real* h, const Real* hn, const Real* h0, const Real* dh, const Real* product,  //
                         Wide* dh_t, Real* dz, Real* da, Real* dh_tap, int start, int before, int n, int begun, int H) {
  step_backward(gates, h, hn, h0, dh, product, dh_t, dz, da, dh_tap, start, before, n, begun, H);
}

// All steps forward.
//
// z        (S, 3H)    read
// w_hh     (3H, H)    read once
// b_hn     (H,)       read
// h0       (N, H)     read
// h_t      (N, H)     Wide; h0 on entry, h_n on return
// first    (T + 1,)   read: the first row of every step, and S
// h, hn    (S, H)     written; h is read one step later by all blocks
// gates    (S, 3H)    written
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_persistent_forward(const Real* z, const Real* w_hh, const Real* b_hn, const Real* h0, Wide* h_t, const int* first,  //
                       Real* h, Real* gates, Real* hn, int T, int H, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int place = threadIdx.x / units, unit = threadIdx.x % units, j = blockIdx.x * units + unit;
  Slice<3> w(memory, units, H);
  w.load_rows(w_hh, blockIdx.x * units, H);

  for (int t = 0; t < T; ++t) {
    const int start = first[t], running = first[t + 1] - start, going_on = t + 1 < T ? first[t + 2] - first[t + 1] : 0;
    const Real* h_before = t > 0 ? h + at(first[t - 1], H) : h0;
    for (int tile = w.rows() * blockIdx.y; tile < running; tile += w.rows() * gridDim.y) {
      const int sequence = tile + place, row = start + sequence;
      const bool mine = place < w.rows() && sequence < running && j < H;
      Wide z_r = 0, z_u = 0, z_n = 0, before = 0;
      if (mine) {  // on their way during the product
        const Real* z_t = z + at(row, 3 * H) + j;
        z_r = widen(z_t[0 * H]);
        z_u = widen(z_t[1 * H]);
        z_n = widen(z_t[2 * H]);
        before = h_t[at(sequence, H) + j];
        if (sequence < going_on)
          for (int gate = 0; gate < 3; ++gate) prefetch(z_t + at(running, 3 * H) + gate * H);  // of step t + 1
      }
      w.multiply(h_before + at(tile, H), min(w.rows(), running - tile));  // (1.1)
      if (!mine) continue;
      const Wide a_r = w.sum(place, 0 * units + unit);
      const Wide a_u = w.sum(place, 1 * units + unit);
      const Wide a_n = w.sum(place, 2 * units + unit);
      h_t[at(sequence, H) + j] = forward_unit(z_r, z_u, z_n, a_r, a_u, a_n, widen(b_hn[j]), before, row, j, H, h, gates, hn);
    }
    if (t + 1 < T && gridDim.x > 1) cooperative_groups::this_grid().sync();  // h_t is there for all
  }
}

// All steps backward.
//
// gates    (S, 3H)    read
// h, hn    (S, H)     read
// h0       (N, H)     read
// w_hh     (3H, H)    read once
// dh       (S, H)     read, or null for zero
// dh_t     (N, H)     Wide; dh_n on entry; alive for the sequence
// first    (T + 1,)   read: the first row of every step, and S
// dz       (S, 3H)    written
// da       (S, 3H)    written, and read one step later by all blocks
// dh0      (N, H)     written
// dh_tap   (S, H)     written: the whole dL/dh_t of (2.2); or null
// units    hidden units per block, 8 or 16; dynamic shared memory as minirnn.kernels.cuda.plan says
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gru_persistent_backward(const Real* gates, const Real* h, const Real* hn, const Real* h0, const Real* w_hh, const Real* dh,  //
                        Wide* dh_t, const int* first, Real* dz, Real* da, Real* dh0, Real* dh_tap, int T, int H, int units) {
  extern __shared__ __align__(16) unsigned char memory[];
  if ((int)gridDim.x * units < H) __trap();  // CuPy shrinks a grid that does not fit
  const int place = threadIdx.x / units, unit = threadIdx.x % units, j = blockIdx.x * units + unit;
  Slice<1> w(memory, units, 3 * H);
  w.load_columns(w_hh, blockIdx.x * units, H);

  for (int t = T - 1; t >= -1; --t) {  // at t = -1 dh0 is left to do
    const int after = first[t + 1], begun = t + 1 < T ? first[t + 2] - after : 0;  // step t + 1: the sequences that are on their way back
    const int start = t >= 0 ? first[t] : 0, running = t >= 0 ? after - start : begun;
    const Real* h_before = t > 0 ? h + at(first[t - 1], H) : h0;
    for (int tile = w.rows() * blockIdx.y; tile < running; tile += w.rows() * gridDim.y) {
      const int sequence = tile + place;
      const size_t e = at(sequence, H) + j;
      const bool mine = place < w.rows() && sequence < running && j < H;
      Kept kept = {};
      Wide whole = mine ? dh_t[e] : Wide(0);
      if (mine && t >= 0) {  // on their way during the product
        kept = kept_of(start + sequence, j, H, gates, hn, h_before[e], dh);
        if (t > 0) {  // of step t - 1
          const int earlier = first[t - 1] + sequence;
          for (int gate = 0; gate < 3; ++gate) prefetch(gates + at(earlier, 3 * H) + gate * H + j);
          prefetch(hn + at(earlier, H) + j);
          if (t > 1) prefetch(h + at(first[t - 2] + sequence, H) + j);
          if (dh) prefetch(dh + at(earlier, H) + j);
        }
      }
      if (tile < begun) w.multiply(da + at(after + tile, 3 * H), min(w.rows(), begun - tile));
      if (!mine) continue;
      if (sequence < begun) whole += w.sum(place, unit);  // (2.7), or (2.1) where this is the last step
      if (t >= 0)
        dh_t[e] = backward_unit(whole, kept, start + sequence, j, H, dz, da, dh_tap);
      else
        dh0[e] = narrow(whole);  // (2.10)
    }
    if (t >= 0 && gridDim.x > 1) cooperative_groups::this_grid().sync();  // da_t is there for all
  }
}
