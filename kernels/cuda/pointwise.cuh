// The nonlinearities of the gates, in Wide precision.

__device__ __forceinline__ float tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double tangent(double x) { return tanh(x); }

// 1 / (1 + exp(-x)), written so that no x overflows.
__device__ __forceinline__ Wide sigmoid(Wide x) { return Wide(0.5) * tangent(Wide(0.5) * x) + Wide(0.5); }

// Brings the line of p into the L2 cache, so that it is near when it is read a step later.
__device__ __forceinline__ void prefetch(const Real* p) {
#ifndef CUDA_ON_CPU
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

// Where row `row` of an array begins whose rows are `width` numbers wide: the product may pass 2^31.
__device__ __forceinline__ size_t at(int row, int width) { return (size_t)row * width; }
