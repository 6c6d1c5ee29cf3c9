# mypy: allow-untyped-decorators, allow-untyped-calls, disable-error-code="attr-defined, misc"
"""The LSTM recurrence in Numba-CUDA. Equation numbers are those of README.md in this folder; the names are those of numpy_.py and lstm.cu.

Step form        lstm_step_forward, lstm_step_backward[_tapped]: one launch a step beside a library product; any size
Persistent form  lstm_persistent_forward, lstm_persistent_backward: one cooperative launch for the whole sequence

Step form, one thread for each of the n H units of a step
  Memory     forward reads z 4, a 4, c_t 1 and writes gates 4, c 1, c_t 1, h 1 numbers per unit; backward reads gates 4, c 1, c_{t-1} 1,
             dh_t 1, dc_t 1, dh 1 (and dc 1) and writes dz 4, dc_t 1 (and the taps 2)
  Floor      that traffic, beside the product: 8 n H^2 operations

Persistent form, grid (ceil(H / units), groups of batch tiles), block (units, rows); all blocks on the device at once
  Block      `units` hidden units, 8, 16 or 32; of the tiles of `rows` sequences, every gridDim.y-th
  Shared     its slice of w_hh for the whole sequence, 4 H units numbers: forward the rows of its gates, backward its columns;
             and a chunk of each row of x: see ../cuda/numba_rows.py
  Registers  the sums: thread (u, r) owns unit u of row r of the tile, and their order is that of k
  Global     c_t, dc_t (N, H), read and written by the one thread that owns them
  Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 4, c_t 1, and writes gates 4, c 1, c_t 1,
             h 1; backward reads dz_{t+1} (4 n H, by each) and per unit gates 4, c 1, c_{t-1} 1, dc_t 1, dh 1 (and dc 1), and writes
             dz 4, dc_t 1 (and the taps 2). 8 n H^2 operations either way; one grid barrier, none where one block holds all units
  Floor      the larger of 8 n H^2 operations at the device's rate, and 5 numbers (forward; backward 8) read from shared memory for every 4
             multiply-adds; plus a barrier

An argument dh, dc or dh_n without rows means zero, and nobody asks for taps without rows. All arrays are C-contiguous, and of one dtype,
float32 or float64, except for `first`, which is int32.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from minirnn.kernels.contract import Array, LSTMGrads, LSTMTape, check_packed
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
    multiply_4,
    previous,
    rows_or_none,
    seen_by_numba,
    sigmoid,
    steps,
)
from minirnn.kernels.cuda.packed import device_starts

taps = True


@cuda.jit(device=True)
def forward_unit(a_i: Any, a_f: Any, a_g: Any, a_o: Any, c_before: Any, row: int, j: int, h: Any, c: Any, gates: Any) -> Any:
    """One unit of one row, (1.2) to (1.7). a_* are the pre-activations of (1.1); c_before is c_{t-1}, what is returned c_t."""
    H, half = h.shape[1], h.dtype.type(0.5)
    i = sigmoid(a_i, half)  # (1.2)
    f = sigmoid(a_f, half)  # (1.3)
    g = math.tanh(a_g)  # (1.4)
    o = sigmoid(a_o, half)  # (1.5)
    c_t = f * c_before + i * g  # (1.6)
    h_t = o * math.tanh(c_t)  # (1.7)
    gates[row, 0 * H + j] = i
    gates[row, 1 * H + j] = f
    gates[row, 2 * H + j] = g
    gates[row, 3 * H + j] = o
    c[row, j] = c_t
    h[row, j] = h_t
    return c_t


@cuda.jit(device=True)
def backward_unit(
    dh_t: Any, dc_t: Any, c_before: Any, row: int, j: int, gates: Any, c: Any, dh: Any, dc: Any, dz: Any, dh_tap: Any, dc_tap: Any
) -> Any:
    """One unit of one row, (2.2) to (2.9). dh_t, dc_t are what step t + 1 left, or dh_n, dc_n; what is returned is dc_{t-1}."""
    H, one = c.shape[1], c.dtype.type(1)
    i = gates[row, 0 * H + j]
    f = gates[row, 1 * H + j]
    g = gates[row, 2 * H + j]
    o = gates[row, 3 * H + j]
    if dh.shape[0] > 0:
        dh_t += dh[row, j]  # (2.2)
    if dc.shape[0] > 0:
        dc_t += dc[row, j]  # (2.3)
    tanh_c = math.tanh(c[row, j])
    da_o = dh_t * tanh_c * o * (one - o)  # (2.4)
    dc_t += dh_t * o * (one - tanh_c * tanh_c)  # (2.5)
    if dh_tap is not None and dh_tap.shape[0] > 0:
        dh_tap[row, j] = dh_t
        dc_tap[row, j] = dc_t
    da_i = dc_t * g * i * (one - i)  # (2.6)
    da_f = dc_t * c_before * f * (one - f)  # (2.7)
    da_g = dc_t * i * (one - g * g)  # (2.8)
    dz[row, 0 * H + j] = da_i
    dz[row, 1 * H + j] = da_f
    dz[row, 2 * H + j] = da_g
    dz[row, 3 * H + j] = da_o
    return dc_t * f  # (2.9)


@cuda.jit
def lstm_step_forward(z: Any, a: Any, c_t: Any, h: Any, c: Any, gates: Any, h_n: Any, start: int, n: int, going_on: int) -> None:
    """Step t, after a = h_{t-1} w_hh^T.

    z        (S, 4H)    read
    a        (N, 4H)    read, rows below n: the product, alive for this step
    c_t      (N, H)     read and written, rows below n: c_{t-1}, then c_t; alive for the sequence
    h, c     (S, H)     written, rows of this step
    gates    (S, 4H)    written, rows of this step
    h_n      (N, H)     written, rows of the sequences that end here
    start    first row of this step;  n  its rows;  going_on  rows of the step after, 0 after the last
    """
    H, e = h.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j, row = e - sequence * H, start + sequence
    c_t[sequence, j] = forward_unit(
        z[row, 0 * H + j] + a[sequence, 0 * H + j],
        z[row, 1 * H + j] + a[sequence, 1 * H + j],
        z[row, 2 * H + j] + a[sequence, 2 * H + j],
        z[row, 3 * H + j] + a[sequence, 3 * H + j],
        c_t[sequence, j],
        row,
        j,
        h,
        c,
        gates,
    )
    if sequence >= going_on:
        h_n[sequence, j] = h[row, j]


@cuda.jit(device=True)
def step_backward(
    gates: Any, c: Any, c0: Any, dh: Any, dc: Any, dh_t: Any, dc_t: Any, dz: Any, dh_tap: Any, dc_tap: Any, start: int, before: int, n: int
) -> None:
    """Both of the following; dh_tap and dc_tap may be None."""
    H, e = c.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j = e - sequence * H
    c_before = c0[sequence, j] if before < 0 else c[before + sequence, j]
    row = start + sequence
    dc_t[sequence, j] = backward_unit(dh_t[sequence, j], dc_t[sequence, j], c_before, row, j, gates, c, dh, dc, dz, dh_tap, dc_tap)


@cuda.jit
def lstm_step_backward(
    gates: Any, c: Any, c0: Any, dh: Any, dc: Any, dh_t: Any, dc_t: Any, dz: Any, start: int, before: int, n: int
) -> None:
    """Step t, before dh_{t-1} = dz_t w_hh.

    gates    (S, 4H)    read
    c        (S, H)     read
    c0       (N, H)     read
    dh, dc   (S, H)     read
    dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
    dc_t     (N, H)     read and written, rows below n: dL/dc_t, then dL/dc_{t-1}; alive for the sequence
    dz       (S, 4H)    written, rows of this step
    start    first row of this step;  before  first row of the step before, -1 where c0 is before;  n  rows of this step
    """
    step_backward(gates, c, c0, dh, dc, dh_t, dc_t, dz, None, None, start, before, n)


@cuda.jit
def lstm_step_backward_tapped(
    gates: Any, c: Any, c0: Any, dh: Any, dc: Any, dh_t: Any, dc_t: Any, dz: Any, dh_tap: Any, dc_tap: Any, start: int, before: int, n: int
) -> None:
    """The same with taps, in a kernel of its own: so the other has the registers of one without.

    gates    (S, 4H)    read
    c        (S, H)     read
    c0       (N, H)     read
    dh, dc   (S, H)     read
    dh_t     (N, H)     read, rows below n: dL/dh_t, or dh_n where a sequence begins its way back
    dc_t     (N, H)     read and written, rows below n: dL/dc_t, then dL/dc_{t-1}; alive for the sequence
    dz       (S, 4H)    written, rows of this step
    dh_tap, dc_tap  (S, H)  written, rows of this step: the whole dL/dh_t of (2.2) and dL/dc_t of (2.5)
    start    first row of this step;  before  first row of the step before, -1 where c0 is before;  n  rows of this step
    """
    step_backward(gates, c, c0, dh, dc, dh_t, dc_t, dz, dh_tap, dc_tap, start, before, n)


@cuda.jit
def lstm_persistent_forward(z: Any, w_hh: Any, h0: Any, c_t: Any, first: Any, h: Any, c: Any, gates: Any, h_n: Any) -> None:
    """All steps forward.

    z        (S, 4H)    read
    w_hh     (4H, H)    read once
    h0       (N, H)     read
    c_t      (N, H)     c0 on entry, c_n on return
    first    (T + 1,)   int32, read: the first row of every step, and S
    h, c     (S, H)     written; h is read one step later by all blocks
    gates    (S, 4H)    written
    h_n      (N, H)     written
    """
    T, H = first.shape[0] - 1, h0.shape[1]
    u, r = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * cuda.blockDim.x + u
    memory = cuda.shared.array(0, z.dtype)
    w, x = memory[: 4 * H * cuda.blockDim.x], memory[4 * H * cuda.blockDim.x :]
    load_rows(w, w_hh, 4)

    for t in range(T):
        start = first[t]
        n = first[t + 1] - start
        going_on = first[t + 2] - first[t + 1] if t + 1 < T else 0
        before = first[t - 1] if t > 0 else 0
        h_before = h if t > 0 else h0
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, n, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + r
            a_i, a_f, a_g, a_o = multiply_4(w, x, h_before, before + sequence, sequence < n)  # (1.1)
            if sequence < n and j < H:
                row = start + sequence
                c_t[sequence, j] = forward_unit(
                    z[row, 0 * H + j] + a_i,
                    z[row, 1 * H + j] + a_f,
                    z[row, 2 * H + j] + a_g,
                    z[row, 3 * H + j] + a_o,
                    c_t[sequence, j],
                    row,
                    j,
                    h,
                    c,
                    gates,
                )
                if sequence >= going_on:
                    h_n[sequence, j] = h[row, j]
        if t + 1 < T and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # h_t is there for all


@cuda.jit
def lstm_persistent_backward(
    gates: Any,
    c: Any,
    c0: Any,
    w_hh: Any,
    dh: Any,
    dc: Any,
    dh_n: Any,
    dc_t: Any,
    first: Any,
    dz: Any,
    dh0: Any,
    dh_tap: Any,
    dc_tap: Any,
) -> None:
    """All steps backward.

    gates    (S, 4H)    read
    c        (S, H)     read
    c0       (N, H)     read
    w_hh     (4H, H)    read once
    dh, dc   (S, H)     read
    dh_n     (N, H)     read
    dc_t     (N, H)     dc_n on entry, dc0 on return
    first    (T + 1,)   int32, read: the first row of every step, and S
    dz       (S, 4H)    written, and read one step later by all blocks
    dh0      (N, H)     written
    dh_tap, dc_tap  (S, H)  written: the whole dL/dh_t of (2.2) and dL/dc_t of (2.5)
    """
    T, H = first.shape[0] - 1, c0.shape[1]
    u, r = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * cuda.blockDim.x + u
    memory = cuda.shared.array(0, c.dtype)
    w, x = memory[: 4 * H * cuda.blockDim.x], memory[4 * H * cuda.blockDim.x :]
    load_columns(w, w_hh)

    for t in range(T - 1, -2, -1):  # at t = -1 dh0 is left to do
        after = first[t + 1]
        begun = first[t + 2] - after if t + 1 < T else 0  # rows of step t + 1: the sequences that are on their way back
        start = first[t] if t >= 0 else 0
        n = after - start if t >= 0 else begun
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, n, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + r
            dh_t = c.dtype.type(0)
            if tile < begun:
                dh_t = multiply_1(w, x, dz, after + sequence, sequence < begun)  # (2.10)
            if sequence < n and j < H:
                if sequence >= begun and dh_n.shape[0] > 0:
                    dh_t = dh_n[sequence, j]  # (2.1)
                if t >= 0:
                    row = start + sequence
                    c_before = c[first[t - 1] + sequence, j] if t > 0 else c0[sequence, j]
                    dc_t[sequence, j] = backward_unit(dh_t, dc_t[sequence, j], c_before, row, j, gates, c, dh, dc, dz, dh_tap, dc_tap)
                else:
                    dh0[sequence, j] = dh_t  # (2.12)
        if t >= 0 and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # dz_t is there for all


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array) -> LSTMTape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H) on the device, batch_sizes (T,) on the host; all float32 or all float64"""
    check_packed("LSTM", 4, z, w_hh, batch_sizes, h0=h0, c0=c0)
    xp, (S, H) = module_of(z), (len(z), w_hh.shape[1])
    h, c = xp.empty((S, H), z.dtype), xp.empty((S, H), z.dtype)
    gates = xp.empty((S, 4 * H), z.dtype)
    h_n, c_t = xp.empty_like(h0), c0.copy()  # (N, H)
    plan = persistent(xp, "lstm", "forward", h0)
    if plan is not None:
        stream, *arrays = seen_by_numba(xp, z, w_hh, h0, c_t, device_starts(xp, batch_sizes), h, c, gates, h_n)
        launch_cooperatively(lstm_persistent_forward, plan, stream, *arrays)
        return LSTMTape(h, c, gates, h_n, c_t, h0, c0, batch_sizes)

    a = xp.empty((len(h0), 4 * H), z.dtype)
    stream, *arrays = seen_by_numba(xp, z, a, c_t, h, c, gates, h_n)
    h_before = h0
    for start, n, going_on in steps(batch_sizes):
        xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, 4H)  (1.1)
        launch(lstm_step_forward, blocks_of(n * H), THREADS, stream, *arrays, start, n, going_on)
        h_before = h[start : start + n]  # (n, H)
    return LSTMTape(h, c, gates, h_n, c_t, h0, c0, batch_sizes)


def backward(
    tape: LSTMTape,
    w_hh: Array,
    dh: Array | None,
    dc: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    taps: tuple[Array, Array] | None = None,
) -> LSTMGrads:
    """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H), None means zero; taps: two (S, H) for the whole dL/dh_t and dL/dc_t of every row"""
    xp, H, batch_sizes = module_of(w_hh), w_hh.shape[1], tape.batch_sizes
    dh, dc = rows_or_none(xp, dh, w_hh), rows_or_none(xp, dc, w_hh)  # (S, H), or no rows
    dc_t = xp.zeros_like(tape.c0) if dc_n is None else xp.array(dc_n, order="C")  # (N, H)
    dz = xp.empty_like(tape.gates)  # (S, 4H)
    first = device_starts(xp, batch_sizes)  # (T+1,)
    plan = persistent(xp, "lstm", "backward", tape.h0)
    if plan is not None:
        dh_n, dh_t = rows_or_none(xp, dh_n, w_hh), xp.empty_like(tape.h0)  # (N, H)
        into = taps or (rows_or_none(xp, None, w_hh), rows_or_none(xp, None, w_hh))
        stream, *arrays = seen_by_numba(xp, tape.gates, tape.c, tape.c0, w_hh, dh, dc, dh_n, dc_t, first, dz, dh_t, *into)
        launch_cooperatively(lstm_persistent_backward, plan, stream, *arrays)
    else:
        dh_t = xp.zeros_like(tape.h0) if dh_n is None else xp.array(dh_n, order="C")  # (N, H)  (2.1)
        stream, *arrays = seen_by_numba(xp, tape.gates, tape.c, tape.c0, dh, dc, dh_t, dc_t, dz, *(taps or ()))
        step = lstm_step_backward_tapped if taps else lstm_step_backward
        before = [-1, *(start for start, _, _ in steps(batch_sizes))]
        for t, (start, n, _) in reversed(list(enumerate(steps(batch_sizes)))):
            launch(step, blocks_of(n * H), THREADS, stream, *arrays, start, before[t], n)
            xp.matmul(dz[start : start + n], w_hh, out=dh_t[:n])  # (n, H)  (2.10)
    dw_hh = xp.matmul(dz.T, previous(xp, tape.h, tape.h0, first))  # (4H, H)  (2.11)
    return LSTMGrads(dz, dw_hh, dh_t, dc_t)  # (2.12)
