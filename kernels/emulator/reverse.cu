// Reverses each block's piece of x, by way of shared memory: a kernel to watch. README.md in this folder does.
//
// x, y   (gridDim.x * blockDim.x,) float32, read and written
extern "C" __global__ void reverse(const float* x, float* y) {
  __shared__ float s[32];
  const int i = threadIdx.x, first = blockIdx.x * blockDim.x;
  s[i] = x[first + i];
  __syncthreads();
  y[first + i] = s[blockDim.x - 1 - i];
}
