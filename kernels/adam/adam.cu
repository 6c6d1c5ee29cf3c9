// Adam and AdamW: one pass that reads four arrays and writes three. The equations are those of numpy_.py.
//
// Geometry   1-D; a thread for each parameter, blocks of 256, ceil(size / 256) of them
// Registers  everything; no shared memory
// Memory     param, grad, m, v are read once, param, m, v written once: 7 sizeof(Real) bytes per parameter
// Work       a root, a division and 13 operations more
// Floor      the traffic: 28 bytes per float32 parameter / bandwidth

#include "../cuda/types.cuh"

// param, m, v    (size,)  read and written
// grad           (size,)  read
// scale          multiplies the gradient
// coupled_decay  weight_decay of (2a), or 0
// keep           1 - lr weight_decay of (2b), or 1
// new_m, new_v   1 - beta1, 1 - beta2
// rate           lr / (1 - beta1^t)
// correction     1 / sqrt(1 - beta2^t)
__device__ __forceinline__ void update(Real* param, const Real* grad, Real* m, Real* v, long long size, Wide scale, Wide coupled_decay,
                                       Wide keep, Wide new_m, Wide new_v, Wide rate, Wide correction, Wide eps) {
  const long long j = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (j >= size) return;
  const Wide w = widen(param[j]), before_m = widen(m[j]), before_v = widen(v[j]);
  const Wide g = scale * widen(grad[j]) + coupled_decay * w;  // (1), (2a)
  const Wide after_m = before_m + new_m * (g - before_m);  // (3)
  const Wide after_v = before_v + new_v * (g * g - before_v);  // (4)
  m[j] = narrow(after_m);
  v[j] = narrow(after_v);
  param[j] = narrow(keep * w - rate * after_m / (root(after_v) * correction + eps));  // (2b), (5)
}

extern "C" __global__ void __launch_bounds__(256)
adam_step(Real* param, const Real* grad, Real* m, Real* v, long long size, Wide scale, Wide coupled_decay, Wide keep, Wide new_m,
          Wide new_v, Wide rate, Wide correction, Wide eps) {
  update(param, grad, m, v, size, scale, coupled_decay, keep, new_m, new_v, rate, correction, eps);
}

// The same where the device decided on the scale, (), read: a number that the host has not seen. Where it is not finite, because the norm
// of the gradients was not, nothing is written.
extern "C" __global__ void __launch_bounds__(256)
adam_step_clipped(Real* param, const Real* grad, Real* m, Real* v, long long size, const Wide* scale, Wide coupled_decay, Wide keep,
                  Wide new_m, Wide new_v, Wide rate, Wide correction, Wide eps) {
  const Wide clipped = *scale;
  if (clipped - clipped != 0) return;  // inf - inf and NaN - NaN are NaN
  update(param, grad, m, v, size, clipped, coupled_decay, keep, new_m, new_v, rate, correction, eps);
}
