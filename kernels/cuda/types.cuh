// The types of a kernel. `Real` is what arrays hold and `Wide` what sums are taken in: float for 16 bits, Real otherwise.
// source.py says -DREAL_IS_FLOAT32 and so on.

#if defined(REAL_IS_FLOAT16)
#include <cuda_fp16.h>
typedef __half Real;
typedef float Wide;
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ __half narrow(float x) { return __float2half(x); }
#elif defined(REAL_IS_BFLOAT16)
#include <cuda_bf16.h>
typedef __nv_bfloat16 Real;
typedef float Wide;
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ __nv_bfloat16 narrow(float x) { return __float2bfloat16(x); }
#elif defined(REAL_IS_FLOAT64)
typedef double Real;
typedef double Wide;
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ double narrow(double x) { return x; }
#else
typedef float Real;
typedef float Wide;
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float narrow(float x) { return x; }
#endif

#ifndef INFINITY  // NVRTC brings no <math.h>
#define INFINITY __int_as_float(0x7f800000)
#endif

// One name for the functions of both widths: exp(float) alone would do, but log(1) of an int is a double.
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
