# mypy: allow-untyped-decorators, allow-untyped-calls, disable-error-code="attr-defined, misc"
"""What the recurrences in Numba-CUDA share: the product of a persistent kernel, the gathering of rows, ordered sums, geometry and launches.

The product. A block keeps its slice of w on chip for the whole sequence and multiplies rows of x with it:

    sum[r][q] = sum over k of x[r][k] w[q][k]        forward, x is h_{t-1} and w the rows of w_hh of all gates of the block's hidden units;
                                                     backward, x is dz_t and w the block's columns of w_hh

    block       (units, rows): thread (u, r) owns unit u of row r of the tile; 8, 16 or 32 units, so that a row never leaves its warp
    shared      w, K units G numbers, w[k][q][u]: threads of different units read neighbours, of different rows the same number;
                and CHUNK numbers of each row of x, which the threads of the row fetch and share, so syncwarp is all the order it takes
    registers   the sums, G to a thread, over k = 0, 1, 2, ... in this order, so a row's bits do not depend on what else is in the batch
    per tile    2 rows units G K operations; K rows numbers from L2; (G + 1) K numbers per thread from shared memory, which is the floor

Rows that other blocks wrote in the same launch are read with ldcg, from L2, for the L1 caches know nothing of each other. Everything is of
one dtype, float32 or float64, and no constant may have another: beside a float64 literal a float32 becomes a float64.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from numba import cuda
from numba.cuda.core import config
from numba.cuda.cudadrv.driver import binding, driver

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.numba_plan import CHUNK, PITCH, THREADS, WARP, Geometry
from minirnn.kernels.packed import starts

SUMMANDS = 8  # threads that share a column in column_sum


@cuda.jit(device=True)
def sigmoid(x: Any, half: Any) -> Any:
    """1 / (1 + exp(-x)), written so that no x overflows; `half` is 0.5 in the precision of x."""
    return half * math.tanh(half * x) + half


@cuda.jit(device=True)
def load_rows(w: Any, w_hh: Any, gates: int) -> None:
    """The slice of the forward pass. w (H gates units) on chip, w_hh (gates H, H); zero where the last block has no unit left."""
    H, units = w_hh.shape[1], cuda.blockDim.x
    thread, threads = cuda.threadIdx.y * units + cuda.threadIdx.x, units * cuda.blockDim.y
    zero = w_hh.dtype.type(0)
    for q in range(gates):
        for u in range(units):
            j = cuda.blockIdx.x * units + u
            for k in range(thread, H, threads):
                w[(k * gates + q) * units + u] = w_hh[q * H + j, k] if j < H else zero


@cuda.jit(device=True)
def load_columns(w: Any, w_hh: Any) -> None:
    """The slice of the backward pass. w (K units) on chip, w_hh (K, H); zero where the last block has no unit left."""
    (K, H), units = w_hh.shape, cuda.blockDim.x
    j = cuda.blockIdx.x * units + cuda.threadIdx.x
    zero = w_hh.dtype.type(0)
    for k in range(cuda.threadIdx.y, K, cuda.blockDim.y):
        w[k * units + cuda.threadIdx.x] = w_hh[k, j] if j < H else zero


@cuda.jit(device=True)
def fetch(tile: Any, x: Any, row: int, there: bool, k: int) -> Any:
    """x[row, k : k + CHUNK] into the tile, by the threads of the row; how many numbers that is. All threads of the warp take part."""
    width = min(CHUNK, x.shape[1] - k)
    cuda.syncwarp()  # the chunk before has been used
    if there:
        for e in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            tile[cuda.threadIdx.y * PITCH + e] = cuda.ldcg(x, (row, k + e))
    cuda.syncwarp()
    return width


@cuda.jit(device=True)
def multiply_1(w: Any, tile: Any, x: Any, row: int, there: bool) -> Any:
    """sum over k of x[row, k] w[k], for this thread's unit. All threads of the block take part; `there`: whether its row exists."""
    units, at = cuda.blockDim.x, cuda.threadIdx.y * PITCH
    m = cuda.threadIdx.x
    a = x.dtype.type(0)
    cuda.syncthreads()  # w is there, and what this block wrote to x
    for k in range(0, x.shape[1], CHUNK):
        width = fetch(tile, x, row, there, k)
        if there:
            for e in range(width):
                a += w[m] * tile[at + e]
                m += units
    return a


@cuda.jit(device=True)
def multiply_3(w: Any, tile: Any, x: Any, row: int, there: bool) -> Any:
    """The same for three gates at once."""
    units, at = cuda.blockDim.x, cuda.threadIdx.y * PITCH
    m = cuda.threadIdx.x
    a_0 = a_1 = a_2 = x.dtype.type(0)
    cuda.syncthreads()
    for k in range(0, x.shape[1], CHUNK):
        width = fetch(tile, x, row, there, k)
        if there:
            for e in range(width):
                number = tile[at + e]
                a_0 += w[m] * number
                m += units
                a_1 += w[m] * number
                m += units
                a_2 += w[m] * number
                m += units
    return a_0, a_1, a_2


@cuda.jit(device=True)
def multiply_4(w: Any, tile: Any, x: Any, row: int, there: bool) -> Any:
    """The same for four gates at once."""
    units, at = cuda.blockDim.x, cuda.threadIdx.y * PITCH
    m = cuda.threadIdx.x
    a_0 = a_1 = a_2 = a_3 = x.dtype.type(0)
    cuda.syncthreads()
    for k in range(0, x.shape[1], CHUNK):
        width = fetch(tile, x, row, there, k)
        if there:
            for e in range(width):
                number = tile[at + e]
                a_0 += w[m] * number
                m += units
                a_1 += w[m] * number
                m += units
                a_2 += w[m] * number
                m += units
                a_3 += w[m] * number
                m += units
    return a_0, a_1, a_2, a_3


@cuda.jit
def gather_previous(state: Any, state0: Any, first: Any, before: Any) -> None:
    """The state that each row started from: grid (T, any), any threads; block (t, g) does every gridDim.y-th part of step t.

    state    (S, H)     read
    state0   (N, H)     read: what is before step 0
    first    (T + 1,)   int32, read: the first row of every step, and S
    before   (S, H)     written

    Reads and writes S H numbers each; that traffic is the floor.
    """
    H, t = state0.shape[1], cuda.blockIdx.x
    start = first[t]
    numbers = (first[t + 1] - start) * H
    for e in range(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, numbers, cuda.gridDim.y * cuda.blockDim.x):
        sequence = e // H
        j = e - sequence * H
        before[start + sequence, j] = state[first[t - 1] + sequence, j] if t > 0 else state0[sequence, j]


@cuda.jit
def column_sum(x: Any, out: Any, skip: int) -> None:
    """Sums over all rows, in one order: out[j] = sum over s of x[s, skip + j]. Grid ceil(columns / 32), block (32, SUMMANDS).

    x        (S, width)   read
    out      (columns,)   written

    Thread (c, s) adds the rows s, s + SUMMANDS, ...; the sums of a column meet in shared memory and are added in the order of s.
    Reads S numbers per column, once; that traffic is the floor.
    """
    sums = cuda.shared.array((SUMMANDS, WARP), x.dtype)
    c, s = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WARP + c
    total = x.dtype.type(0)
    if j < out.shape[0]:
        for row in range(s, x.shape[0], SUMMANDS):
            total += x[row, skip + j]
    sums[s, c] = total
    cuda.syncthreads()
    if s == 0 and j < out.shape[0]:
        for other in range(1, SUMMANDS):
            total += sums[other, c]
        out[j] = total


def steps(batch_sizes: Array) -> list[tuple[int, int, int]]:
    """Of every step: its first row, its rows, and how many of them go on (0 after the last)."""
    sizes = batch_sizes.tolist()
    return list(zip(starts(batch_sizes).tolist(), sizes, [*sizes[1:], 0], strict=False))


def blocks_of(numbers: int) -> int:
    """Of THREADS threads, one thread a number."""
    return -(-numbers // THREADS)


def seen_by_numba(xp: ModuleType, *arrays: Array) -> tuple[Any, ...]:
    """The stream that `xp` computes on at present, and views of its arrays. Nothing is copied, and the host waits for nothing."""
    stream = cuda.external_stream(xp.cuda.get_current_stream().ptr)
    return (stream, *(cuda.as_cuda_array(array, sync=False) for array in arrays))


def launch(kernel: Any, grid: Any, block: Any, stream: Any, *arguments: Any, shared: int = 0) -> None:
    """kernel[grid, block, stream, shared](*arguments), without the warning that a small grid leaves a GPU idle: recurrences are small."""
    before, config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
    try:
        configured = kernel[grid, block, stream, shared]
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = before
    configured(*arguments)


def launch_cooperatively(kernel: Any, plan: Geometry, stream: Any, *arguments: Any) -> None:
    """Launch a persistent kernel, after asking the driver for its shared memory and whether its blocks can really run all at once."""
    compiled = kernel.specialize(*arguments)
    (overload,) = compiled.overloads.values()
    function = overload._codelibrary.get_cufunc()
    shared = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(shared, plan.shared, function.handle, function.device.id)
    at_once = overload.max_cooperative_grid_blocks(plan.block, plan.shared)
    if plan.blocks * plan.groups > at_once:
        raise RuntimeError(
            f"{kernel.py_func.__name__}: {plan.blocks * plan.groups} blocks must run at once, and the device holds {at_once}"
        )
    launch(compiled, plan.grid, plan.block, stream, *arguments, shared=plan.shared)


def rows_or_none(xp: ModuleType, gradient: Array | None, like: Array) -> Array:
    """What a kernel gets for an optional gradient: its rows, one after the other, or an array without rows, which means zero."""
    return xp.empty((0, like.shape[1]), like.dtype) if gradient is None else xp.ascontiguousarray(gradient)


def previous(xp: ModuleType, state: Array, state0: Array, first: Array) -> Array:
    """The state that each row started from: row (t, n) holds state_{t-1} of sequence n, and state0 at t = 0.

    state (S, H), state0 (N, H), first (T+1,) of `device_starts` -> (S, H)
    """
    before = xp.empty_like(state)  # (S, H)
    stream, *arrays = seen_by_numba(xp, state, state0, first, before)
    launch(gather_previous, (len(first) - 1, min(64, blocks_of(state0.size))), THREADS, stream, *arrays)
    return before


def sum_of_columns(xp: ModuleType, x: Array, columns: int) -> Array:
    """Sums over all rows of the last `columns` columns, in one order: x (S, width) -> (columns,)"""
    out = xp.empty(columns, x.dtype)
    stream, *arrays = seen_by_numba(xp, x, out)
    launch(column_sum, -(-columns // WARP), (WARP, SUMMANDS), stream, *arrays, x.shape[1] - columns)
    return out
