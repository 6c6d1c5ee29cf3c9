# mypy: allow-untyped-decorators, allow-untyped-calls, disable-error-code="attr-defined, misc"
"""The plain recurrence in Numba-CUDA. Equation numbers are those of README.md in this folder; the names are those of numpy_.py and rnn.cu.

Step form        rnn_step_forward, rnn_step_backward[_tapped]: one launch a step beside a library product; any size
Persistent form  rnn_persistent_forward, rnn_persistent_backward: one cooperative launch for the whole sequence

Step form, one thread for each of the n H units of a step
  Memory     forward reads z 1, a 1 and writes h 1 numbers per unit; backward reads h 1, dh 1, dh_t 1 and writes dz 1 (and the tap 1)
  Floor      that traffic, beside the product: 2 n H^2 operations

Persistent form, grid (ceil(H / units), groups of batch tiles), block (units, rows); all blocks on the device at once
  Block      `units` hidden units, 8, 16 or 32; of the tiles of `rows` sequences, every gridDim.y-th
  Shared     its slice of w_hh for the whole sequence, H units numbers: forward its rows, backward its columns;
             and a chunk of each row of x: see ../cuda/numba_rows.py
  Registers  the sum: thread (u, r) owns unit u of row r of the tile, and the order of the sum is that of k
  Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 1, and writes h 1; backward reads
             dz_{t+1} (n H, by each) and per unit h 1, dh 1, and writes dz 1 (and the tap 1). 2 n H^2 operations either way; one grid
             barrier, none where one block holds all units
  Floor      the larger of 2 n H^2 operations at the device's rate, and 2 numbers read from shared memory for every multiply-add; plus a
             barrier

An argument dh or dh_n without rows means zero, and nobody asks for a tap without rows. All arrays are C-contiguous, and of one dtype,
float32 or float64, except for `first`, which is int32.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from minirnn.kernels.contract import Array, RNNGrads, RNNTape, check_nonlinearity, check_packed
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.numba_plan import persistent
from minirnn.kernels.cuda.numba_rows import (
    THREADS,
    blocks_of,
    launch,
    launch_cooperatively,
    load_columns,
    load_rows,
    multiply_1,
    previous,
    rows_or_none,
    seen_by_numba,
    steps,
)
from minirnn.kernels.cuda.packed import device_starts

taps = True


@cuda.jit(device=True)
def phi(x: Any, zero: Any, relu: int) -> Any:
    """(1.2) A NaN stays one. `zero` is 0 in the precision of x."""
    if relu == 0:
        return math.tanh(x)
    return zero if x <= zero else x


@cuda.jit(device=True)
def through_phi(dh_t: Any, h_t: Any, zero: Any, one: Any, relu: int) -> Any:
    """(2.3) dh_t phi', from the value h_t of phi."""
    if relu == 0:
        return dh_t * (one - h_t * h_t)
    return zero if h_t <= zero else dh_t


@cuda.jit
def rnn_step_forward(z: Any, a: Any, h: Any, h_n: Any, start: int, n: int, going_on: int, relu: int) -> None:
    """Step t, after a = h_{t-1} w_hh^T.

    z        (S, H)     read
    a        (N, H)     read, rows below n: the product, alive for this step
    h        (S, H)     written, rows of this step
    h_n      (N, H)     written, rows of the sequences that end here
    start    first row of this step;  n  its rows;  going_on  rows of the step after, 0 after the last
    relu     0 for tanh
    """
    H, e = h.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j, row = e - sequence * H, start + sequence
    h_t = phi(z[row, j] + a[sequence, j], h.dtype.type(0), relu)  # (1.2)
    h[row, j] = h_t
    if sequence >= going_on:
        h_n[sequence, j] = h_t


@cuda.jit(device=True)
def step_backward(h: Any, dh: Any, dh_t: Any, dz: Any, dh_tap: Any, start: int, n: int, relu: int) -> None:
    """Both of the following; dh_tap may be None."""
    H, e = h.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j, row = e - sequence * H, start + sequence
    whole = dh_t[sequence, j]
    if dh.shape[0] > 0:
        whole += dh[row, j]  # (2.2)
    if dh_tap is not None:
        dh_tap[row, j] = whole
    dz[row, j] = through_phi(whole, h[row, j], h.dtype.type(0), h.dtype.type(1), relu)


@cuda.jit
def rnn_step_backward(h: Any, dh: Any, dh_t: Any, dz: Any, start: int, n: int, relu: int) -> None:
    """Step t, before dh_{t-1} = dz_t w_hh.

    h        (S, H)     read
    dh       (S, H)     read
    dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
    dz       (S, H)     written, rows of this step
    start    first row of this step;  n  its rows
    relu     0 for tanh
    """
    step_backward(h, dh, dh_t, dz, None, start, n, relu)


@cuda.jit
def rnn_step_backward_tapped(h: Any, dh: Any, dh_t: Any, dz: Any, dh_tap: Any, start: int, n: int, relu: int) -> None:
    """The same with taps, in a kernel of its own: so the other has the registers of one without.

    h        (S, H)     read
    dh       (S, H)     read
    dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
    dz       (S, H)     written, rows of this step
    dh_tap   (S, H)     written, rows of this step: the whole dL/dh_t of (2.2)
    start    first row of this step;  n  its rows
    relu     0 for tanh
    """
    step_backward(h, dh, dh_t, dz, dh_tap, start, n, relu)


@cuda.jit
def rnn_persistent_forward(z: Any, w_hh: Any, h0: Any, first: Any, h: Any, h_n: Any, relu: int) -> None:
    """All steps forward.

    z        (S, H)     read
    w_hh     (H, H)     read once
    h0       (N, H)     read
    first    (T + 1,)   int32, read: the first row of every step, and S
    h        (S, H)     written, and read one step later by all blocks
    h_n      (N, H)     written
    relu     0 for tanh
    """
    T, H = first.shape[0] - 1, h0.shape[1]
    u, r = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * cuda.blockDim.x + u
    memory = cuda.shared.array(0, z.dtype)
    w, x = memory[: H * cuda.blockDim.x], memory[H * cuda.blockDim.x :]
    load_rows(w, w_hh, 1)

    for t in range(T):
        start = first[t]
        n = first[t + 1] - start
        going_on = first[t + 2] - first[t + 1] if t + 1 < T else 0
        before = first[t - 1] if t > 0 else 0
        h_before = h if t > 0 else h0
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, n, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + r
            a = multiply_1(w, x, h_before, before + sequence, sequence < n)  # (1.1)
            if sequence < n and j < H:
                h_t = phi(z[start + sequence, j] + a, h.dtype.type(0), relu)  # (1.2)
                h[start + sequence, j] = h_t
                if sequence >= going_on:
                    h_n[sequence, j] = h_t
        if t + 1 < T and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # h_t is there for all


@cuda.jit
def rnn_persistent_backward(h: Any, w_hh: Any, dh: Any, dh_n: Any, first: Any, dz: Any, dh0: Any, dh_tap: Any, relu: int) -> None:
    """All steps backward.

    h        (S, H)     read
    w_hh     (H, H)     read once
    dh       (S, H)     read
    dh_n     (N, H)     read
    first    (T + 1,)   int32, read: the first row of every step, and S
    dz       (S, H)     written, and read one step later by all blocks
    dh0      (N, H)     written
    dh_tap   (S, H)     written: the whole dL/dh_t of (2.2)
    relu     0 for tanh
    """
    T, H = first.shape[0] - 1, dh0.shape[1]
    u, r = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * cuda.blockDim.x + u
    memory = cuda.shared.array(0, h.dtype)
    w, x = memory[: H * cuda.blockDim.x], memory[H * cuda.blockDim.x :]
    load_columns(w, w_hh)

    for t in range(T - 1, -2, -1):  # at t = -1 dh0 is left to do
        after = first[t + 1]
        begun = first[t + 2] - after if t + 1 < T else 0  # rows of step t + 1: the sequences that are on their way back
        start = first[t] if t >= 0 else 0
        n = after - start if t >= 0 else begun
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, n, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + r
            dh_t = h.dtype.type(0)
            if tile < begun:
                dh_t = multiply_1(w, x, dz, after + sequence, sequence < begun)  # (2.4)
            if sequence < n and j < H:
                if sequence >= begun and dh_n.shape[0] > 0:
                    dh_t = dh_n[sequence, j]  # (2.1)
                if t >= 0:
                    row = start + sequence
                    if dh.shape[0] > 0:
                        dh_t += dh[row, j]  # (2.2)
                    if dh_tap.shape[0] > 0:
                        dh_tap[row, j] = dh_t
                    dz[row, j] = through_phi(dh_t, h[row, j], h.dtype.type(0), h.dtype.type(1), relu)
                else:
                    dh0[sequence, j] = dh_t  # (2.6)
        if t >= 0 and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # dz_t is there for all


def forward(z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh") -> RNNTape:
    """z (S, H), w_hh (H, H), h0 (N, H) on the device, batch_sizes (T,) on the host; all float32 or all float64"""
    check_packed("RNN", 1, z, w_hh, batch_sizes, h0=h0)
    check_nonlinearity(nonlinearity)
    xp, H, relu = module_of(z), w_hh.shape[1], int(nonlinearity == "relu")
    h, h_n = xp.empty_like(z), xp.empty_like(h0)  # (S, H), (N, H)
    plan = persistent(xp, "rnn", "forward", h0)
    if plan is not None:
        stream, *arrays = seen_by_numba(xp, z, w_hh, h0, device_starts(xp, batch_sizes), h, h_n)
        launch_cooperatively(rnn_persistent_forward, plan, stream, *arrays, relu)
        return RNNTape(h, h_n, h0, batch_sizes, nonlinearity)

    a = xp.empty_like(h0)  # (N, H)
    stream, *arrays = seen_by_numba(xp, z, a, h, h_n)
    h_before = h0
    for start, n, going_on in steps(batch_sizes):
        xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, H)  (1.1)
        launch(rnn_step_forward, blocks_of(n * H), THREADS, stream, *arrays, start, n, going_on, relu)
        h_before = h[start : start + n]  # (n, H)
    return RNNTape(h, h_n, h0, batch_sizes, nonlinearity)


def backward(tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None, taps: tuple[Array] | None = None) -> RNNGrads:
    """dh (S, H), dh_n (N, H), None means zero; taps: one (S, H) for the whole dL/dh_t of every row"""
    xp, H, batch_sizes, relu = module_of(w_hh), w_hh.shape[1], tape.batch_sizes, int(tape.nonlinearity == "relu")
    dh = rows_or_none(xp, dh, w_hh)  # (S, H), or no rows
    dz = xp.empty_like(tape.h)  # (S, H)
    first = device_starts(xp, batch_sizes)  # (T+1,)
    plan = persistent(xp, "rnn", "backward", tape.h0)
    if plan is not None:
        dh_n, dh_t = rows_or_none(xp, dh_n, w_hh), xp.empty_like(tape.h0)  # (N, H)
        into = taps or (rows_or_none(xp, None, w_hh),)
        stream, *arrays = seen_by_numba(xp, tape.h, w_hh, dh, dh_n, first, dz, dh_t, *into)
        launch_cooperatively(rnn_persistent_backward, plan, stream, *arrays, relu)
    else:
        dh_t = xp.zeros_like(tape.h0) if dh_n is None else xp.array(dh_n, order="C")  # (N, H)  (2.1)
        stream, *arrays = seen_by_numba(xp, tape.h, dh, dh_t, dz, *(taps or ()))
        step = rnn_step_backward_tapped if taps else rnn_step_backward
        for start, n, _ in reversed(steps(batch_sizes)):
            launch(step, blocks_of(n * H), THREADS, stream, *arrays, start, n, relu)
            xp.matmul(dz[start : start + n], w_hh, out=dh_t[:n])  # (n, H)  (2.4)
    dw_hh = xp.matmul(dz.T, previous(xp, tape.h, tape.h0, first))  # (H, H)  (2.5)
    return RNNGrads(dz, dw_hh, dh_t)  # (2.6)
