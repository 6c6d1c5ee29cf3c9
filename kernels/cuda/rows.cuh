// Sums and maxima over a block that works on one row. Every thread gets the result. The order is that of a binary tree over the threads,
// the same at every run; it depends on blockDim.x alone. blockDim.x is a multiple of 32, at most 1024, and all threads take part.

struct Add {
  __device__ __forceinline__ Wide operator()(Wide a, Wide b) const { return a + b; }
};

// The larger. Beside a NaN it is either of the two.
struct Larger {
  __device__ __forceinline__ Wide operator()(Wide a, Wide b) const { return a > b ? a : b; }
};

template <class Combine>
__device__ __forceinline__ Wide over_warp(Wide value, Combine combine) {
  for (int distance = 16; distance > 0; distance >>= 1) value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// value     this thread's share of the row
// identity  what changes nothing: 0 for a sum, -inf for a maximum
template <class Combine>
__device__ __forceinline__ Wide over_block(Wide value, Combine combine, Wide identity) {
  __shared__ Wide warps[32];
  value = over_warp(value, combine);
  if (blockDim.x == 32) return value;
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  value = over_warp(lane < blockDim.x / 32 ? warps[lane] : identity, combine);
  __syncthreads();  // before the next call writes
  return value;
}
