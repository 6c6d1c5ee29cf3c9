// Groups of threads that wait for each other: a block, the grid, and tiles of a warp.
#pragma once
#include "../cuda_on_cpu.h"

namespace cooperative_groups {

static inline unsigned emu_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
static inline unsigned emu_block() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }

struct thread_block {
  static void sync(EMU_PLACE) { emulator::block_barrier(place); }
  static unsigned thread_rank() { return emu_thread(); }
  static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned num_threads() { return size(); }
  static uint3 group_index() { return blockIdx; }
  static uint3 thread_index() { return threadIdx; }
};

struct grid_group {
  static void sync(EMU_PLACE) { emulator::grid_barrier(place); }
  static bool is_valid() { return true; }
  static unsigned long long num_blocks() { return 1ull * gridDim.x * gridDim.y * gridDim.z; }
  static unsigned long long block_rank() { return emu_block(); }
  static unsigned long long size() { return num_blocks() * thread_block::size(); }
  static unsigned long long num_threads() { return size(); }
  static unsigned long long thread_rank() { return block_rank() * thread_block::size() + emu_thread(); }
};

template <unsigned N> struct thread_block_tile {
  static_assert(N && N <= 32 && (N & (N - 1)) == 0, "a tile has 1, 2, 4, 8, 16 or 32 threads");
  static unsigned mask() { return (N == 32 ? ~0u : (1u << N % 32) - 1) << emulator::lane() / N * N; }
  static unsigned size() { return N; }
  static unsigned num_threads() { return N; }
  static unsigned thread_rank() { return emulator::lane() % N; }
  static unsigned meta_group_rank() { return emu_thread() / N; }
  static unsigned meta_group_size() { return (thread_block::size() + N - 1) / N; }
  static void sync(EMU_PLACE) { __syncwarp(mask(), place); }
  static int any(int vote, EMU_PLACE) { return __any_sync(mask(), vote, place); }
  static int all(int vote, EMU_PLACE) { return __all_sync(mask(), vote, place); }
  static unsigned ballot(int vote, EMU_PLACE) { return __ballot_sync(mask(), vote, place) >> emulator::lane() / N * N; }
  template <class T> static T shfl(T value, int source, EMU_PLACE) { return __shfl_sync(mask(), value, source, N, place); }
  template <class T> static T shfl_xor(T value, int bits, EMU_PLACE) { return __shfl_xor_sync(mask(), value, bits, N, place); }
  template <class T> static T shfl_up(T value, int distance, EMU_PLACE) { return __shfl_up_sync(mask(), value, distance, N, place); }
  template <class T> static T shfl_down(T value, int distance, EMU_PLACE) { return __shfl_down_sync(mask(), value, distance, N, place); }
};

static inline thread_block this_thread_block() { return {}; }
static inline grid_group this_grid() { return {}; }
template <unsigned N, class Group> thread_block_tile<N> tiled_partition(const Group&) { return {}; }
template <class Group> void sync(const Group& group, EMU_PLACE) { group.sync(place); }

}  // namespace cooperative_groups
