// Cross entropy of softmax(x) with a smoothed target, for each row x of the logits. The equations are those of numpy_.py.
//
// Geometry   1-D: a block for each row, of 32 to 256 threads by the row's length; a thread takes every blockDim.x-th class
// Registers  the running maximum and sums
// Shared     32 numbers, for the sums over the block
// Memory     forward reads the logits from memory once, and again from cache; it writes two numbers per row. backward reads and writes
//            once: 3 S V sizeof(Real) bytes for both, 4 where a row has left the cache
// Work       two exponentials per logit
// Floor      the traffic
//
// What is not finite needs no care. The exponential of -inf is 0. A NaN, be it the maximum or not, makes the sum NaN, and so does
// inf - inf.

#include "../cuda/types.cuh"
#include "../cuda/rows.cuh"

// logits     (S, V)  read
// targets    (S,)    read, in [0, V)
// loss       (S,)    written
// lse        (S,)    written, and kept for backward
// on_target  1 - e, e the label smoothing
// on_all     e / V
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_forward(const Real* logits, const long long* targets, Real* loss, Wide* lse, int V, Wide on_target, Wide on_all) {
  const Real* x = logits + (long long)blockIdx.x * V;
  Wide m = -INFINITY;
  for (int k = threadIdx.x; k < V; k += blockDim.x) m = Larger()(m, widen(x[k]));
  m = over_block(m, Larger(), -INFINITY);  // (1)
  Wide total = 0, shifted = 0;
  for (int k = threadIdx.x; k < V; k += blockDim.x) {
    total += exponential(widen(x[k]) - m);
    shifted += widen(x[k]) - m;
  }
  total = over_block(total, Add(), 0);
  if (on_all > 0) shifted = over_block(shifted, Add(), 0);
  if (threadIdx.x > 0) return;
  const Wide log_total = logarithm(total);
  Wide value = log_total - on_target * (widen(x[targets[blockIdx.x]]) - m);  // (3)
  if (on_all > 0) value -= on_all * shifted;
  loss[blockIdx.x] = narrow(value);
  lse[blockIdx.x] = m + log_total;  // (2)
}

// logits (S, V), targets (S,), lse (S,), dloss (S,)  read
// dlogits                                    (S, V)  written
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_backward(const Real* logits, const long long* targets, const Wide* lse, const Real* dloss, Real* dlogits, int V,
                       Wide on_target, Wide on_all) {
  const long long row = (long long)blockIdx.x * V;
  const long long target = targets[blockIdx.x];
  const Wide d = widen(dloss[blockIdx.x]), z = lse[blockIdx.x];
  for (int k = threadIdx.x; k < V; k += blockDim.x) {
    const Wide q = k == target ? on_all + on_target : on_all;
    dlogits[row + k] = narrow(d == 0 ? Wide(0) : d * (exponential(widen(logits[row + k]) - z) - q));  // (4)
  }
}
