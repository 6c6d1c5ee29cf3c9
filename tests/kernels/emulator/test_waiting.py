"""Barriers, warps and grids: kernels that wait correctly give the result of every schedule, and each way to wait wrongly is found."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import build
from minirnn.kernels.emulator.library import Library
from minirnn.kernels.emulator.translate import EmulatorError

SCHEDULES = (0, 1, 2, 3, 1009)

SOURCE = """
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void reverse(const float* x, float* y) {  // of 64 numbers, through shared memory
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  BLOCK_BARRIER
  y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void rotate(float* a, float* b, int steps) {  // every block reads what the next one wrote in the step before
  const int n = gridDim.x, next = (blockIdx.x + 1) % n;
  for (int t = 0; t < steps; ++t) {
    float* from = t % 2 ? b : a;
    float* to = t % 2 ? a : b;
    to[blockIdx.x] = from[next];
    GRID_BARRIER
  }
}

extern "C" __global__ void sum_of_a_warp(const float* x, float* y) {
  float s = x[threadIdx.x];
  for (int bits = 16; bits > 0; bits /= 2) s += __shfl_xor_sync(MASK, s, bits);
  y[threadIdx.x] = s;
}

extern "C" __global__ void reverse_in_a_warp(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  WARP_BARRIER
  y[threadIdx.x] = s[31 - threadIdx.x];
}

extern "C" __global__ void divergent(int* out) {
  if (threadIdx.x < 5) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1;
}

extern "C" __global__ void some_return(int* out) {
  if (threadIdx.x == 7) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

extern "C" __global__ void half_a_warp_returns(int* out) {
  if (threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_sync(0xffffffffu, threadIdx.x, 3);
}

extern "C" __global__ void one_waits_for_the_grid(int* out) {
  if (blockIdx.x == 0) cg::this_grid().sync();
  else __syncthreads();
  if (blockIdx.x == 1) { __shared__ int never; while (atomicAdd(&never, 0) != 42) __nanosleep(20); }
}

extern "C" __global__ void two_barriers_of_the_grid(int* out) {
  if (blockIdx.x == 0) cg::this_grid().sync();
  else cg::this_grid().sync();
  out[blockIdx.x] = 1;
}

extern "C" __global__ void a_block_returns_before_the_grid(int* out) {
  if (blockIdx.x == 1) return;
  cg::this_grid().sync();
  out[blockIdx.x] = 1;
}

extern "C" __global__ void handmade_barrier(int* arrived, int* seen) {  // the last block sees what all have added
  atomicAdd(arrived, 1);
  while (__ldcg(arrived) < gridDim.x) __nanosleep(20);
  seen[blockIdx.x] = *arrived;
}

extern "C" __global__ void one_works(int* arrived, int* total, int steps) {
  if (blockIdx.x == 0)
    for (int i = 0, one = 1; i < steps; ++i) *total += __ldcg(&one);
  atomicAdd(arrived, 1);
  while (__ldcg(arrived) < gridDim.x) __nanosleep(20);
}

extern "C" __global__ void votes(int* out) {
  const int odd = threadIdx.x % 2, all = __syncthreads_and(1), none = __syncthreads_or(0), count = __syncthreads_count(odd);
  out[threadIdx.x] = 100 * all + 10 * none + count;
}

extern "C" __global__ void tiles(int* out) {
  auto tile = cg::tiled_partition<8>(cg::this_thread_block());
  int s = threadIdx.x;
  for (int distance = 4; distance > 0; distance /= 2) s += tile.shfl_down(s, distance);
  out[threadIdx.x] = tile.shfl(s, 0);
}

extern "C" __global__ void lanes(int* up, int* down, unsigned* ballot, int* sum) {
  const int lane = threadIdx.x;
  up[lane] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
  down[lane] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
  ballot[lane] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  sum[lane] = __reduce_add_sync(0xffffffffu, lane);
}
"""
RIGHT = {
    "BLOCK_BARRIER": "__syncthreads();",
    "GRID_BARRIER": "cg::this_grid().sync();",
    "WARP_BARRIER": "__syncwarp();",
    "MASK": "0xffffffffu",
}


@cache
def library(**planted: str) -> Library:
    source = SOURCE
    for name, text in {**RIGHT, **planted}.items():
        source = source.replace(name, text)
    return build.compile(source)


def run(name: str, grid: int, block: int, *args: Any, seed: int = 2, kernels: Library | None = None, cooperative: bool = False) -> None:
    (kernels or library())[name]((grid,), (block,), args, seed=seed, cooperative=cooperative)


def reversed_right(kernels: Library, seed: int) -> bool:
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    run("reverse", 1, 64, x, y, seed=seed, kernels=kernels)
    return bool((y == x[::-1]).all())


def rotated_right(kernels: Library, seed: int) -> bool:
    a, b = np.arange(7, dtype=np.float32), np.zeros(7, np.float32)
    run("rotate", 7, 1, a, b, np.int32(4), seed=seed, kernels=kernels, cooperative=True)
    return bool((a == (np.arange(7) + 4) % 7).all())


def warp_reversed_right(kernels: Library, seed: int) -> bool:
    x, y = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    run("reverse_in_a_warp", 1, 32, x, y, seed=seed, kernels=kernels)
    return bool((y == x[::-1]).all())


@pytest.mark.parametrize("seed", SCHEDULES)
def test_kernels_that_wait_are_right_under_every_schedule(seed: int) -> None:
    assert reversed_right(library(), seed)
    assert rotated_right(library(), seed)
    assert warp_reversed_right(library(), seed)


@pytest.mark.parametrize("seed", SCHEDULES)
def test_a_missing_barrier_is_seen(seed: int) -> None:
    planted = library(BLOCK_BARRIER="", GRID_BARRIER="", WARP_BARRIER="")
    assert not reversed_right(planted, seed)
    assert not warp_reversed_right(planted, seed)
    assert not rotated_right(planted, seed)


def test_a_schedule_is_drawn_from_its_seed() -> None:
    """Without a barrier the result depends on the schedule: equal for one seed, and not for all."""
    planted = library(BLOCK_BARRIER="", GRID_BARRIER="", WARP_BARRIER="")

    def result(seed: int) -> bytes:
        x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
        run("reverse", 1, 64, x, y, seed=seed, kernels=planted)
        return y.tobytes()

    assert result(5) == result(5)
    assert len({result(seed) for seed in range(10)}) > 5


def test_a_sum_over_a_warp() -> None:
    x, y = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    run("sum_of_a_warp", 1, 32, x, y)
    assert (y == x.sum()).all()


@pytest.mark.parametrize("seed", SCHEDULES)
def test_lanes_read_each_other_as_cuda_says(seed: int) -> None:
    up, down, total = (np.zeros(32, np.int32) for _ in range(3))
    ballot = np.zeros(32, np.uint32)
    run("lanes", 1, 32, up, down, ballot, total, seed=seed)
    lane = np.arange(32)
    np.testing.assert_array_equal(up, np.where(lane % 8 < 3, lane, lane - 3))
    np.testing.assert_array_equal(down, np.where(lane % 16 < 13, lane + 3, lane))
    assert (ballot == sum(1 << i for i in range(0, 32, 3))).all()
    assert (total == lane.sum()).all()


def test_votes_and_tiles() -> None:
    out = np.zeros(48, np.int32)
    run("votes", 1, 48, out)
    assert (out == 100 + 24).all()
    run("tiles", 1, 48, out)
    np.testing.assert_array_equal(out, [sum(range(8 * (i // 8), 8 * (i // 8) + 8)) for i in range(48)])


@pytest.mark.parametrize("seed", SCHEDULES)
def test_a_barrier_of_atomics_works_where_all_blocks_run_at_once(seed: int) -> None:
    arrived, seen = np.zeros(1, np.int32), np.zeros(6, np.int32)
    run("handmade_barrier", 6, 1, arrived, seen, seed=seed, cooperative=True)
    assert (seen == 6).all()


@pytest.mark.parametrize(
    ("name", "grid", "block", "cooperative", "words"),
    [
        ("divergent", 1, 32, False, "a divergent __syncthreads.*at kernel.cu:"),
        ("some_return", 1, 32, False, r"although 1 threads of the block have returned"),
        ("half_a_warp_returns", 1, 32, False, "lane 16 has returned|lane 1. has returned|lane 2. has returned|lane 3. has returned"),
        ("two_barriers_of_the_grid", 2, 4, True, r"a divergent barrier of the grid: at kernel.cu:\d+ and at kernel.cu:\d+"),
        ("a_block_returns_before_the_grid", 2, 4, True, "a barrier of the grid although 4 of its threads have returned"),
        ("one_waits_for_the_grid", 2, 4, True, "a livelock"),
        ("one_waits_for_the_grid", 2, 4, False, "a barrier of the grid in a kernel that was not launched cooperatively"),
    ],
)
def test_waiting_wrongly_is_an_error(name: str, grid: int, block: int, cooperative: bool, words: str) -> None:
    with pytest.raises(EmulatorError, match=words):
        run(name, grid, block, np.zeros(64, np.int32), cooperative=cooperative)


def test_blocks_of_an_ordinary_launch_may_not_wait_for_each_other() -> None:
    with pytest.raises(EmulatorError, match="a livelock"):
        run("handmade_barrier", 64, 1, np.zeros(1, np.int32), np.zeros(64, np.int32), seed=0)


def test_a_lane_outside_of_its_mask() -> None:
    x = np.zeros(32, np.float32)
    with pytest.raises(EmulatorError, match=r"lane \d+ is not in the mask 0xff "):
        run("sum_of_a_warp", 1, 32, x, x.copy(), kernels=library(MASK="0xffu"))


def test_a_deadlock_says_who_waits_where() -> None:
    planted = library(BLOCK_BARRIER="if (threadIdx.x == 9) __syncwarp(); else __syncthreads();")
    x = np.zeros(64, np.float32)
    with pytest.raises(EmulatorError) as caught:
        run("reverse", 1, 64, x, x.copy(), kernels=planted)
    message = str(caught.value)
    assert "a deadlock: block (0, 0, 0) thread (0, 0, 0) waits for its block at kernel.cu:8" in message
    assert "thread (9, 0, 0) waits for its warp at kernel.cu:8" in message
    assert "8: if (threadIdx.x == 9) __syncwarp(); else __syncthreads();" in message


def test_a_deadlock_names_the_lane_that_has_returned() -> None:
    """In ascending order the first half of the warp waits already when the other half returns."""
    with pytest.raises(EmulatorError, match=r"a deadlock: .* waits for its warp at kernel.cu:\d+, where lane 16 has returned"):
        run("half_a_warp_returns", 1, 32, np.zeros(32, np.int32), seed=0)


@pytest.mark.parametrize("seed", SCHEDULES)
def test_waiting_long_for_those_that_work_is_no_livelock(seed: int) -> None:
    """One block reads 60,000 numbers with __ldcg, at which others may run, while all others sleep and look."""
    arrived, total = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run("one_works", 64, 1, arrived, total, np.int32(60_000), seed=seed, cooperative=True)
    assert total[0] == 60_000
