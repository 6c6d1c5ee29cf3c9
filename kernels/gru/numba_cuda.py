# mypy: allow-untyped-decorators, allow-untyped-calls, disable-error-code="attr-defined, misc"
"""The GRU recurrence in Numba-CUDA. Equation numbers are those of README.md in this folder; the names are those of numpy_.py and gru.cu.

Step form        gru_step_forward, gru_step_backward[_tapped]: one launch a step beside a library product; any size
Persistent form  gru_persistent_forward, gru_persistent_backward: one cooperative launch for the whole sequence

Step form, one thread for each of the n H units of a step
  Memory     forward reads z 3, a 3, b_hn, h_t 1 and writes gates 3, hn 1, h 1, h_t 1 numbers per unit; backward reads gates 3, hn 1,
             h_{t-1} 1, dh 1, dh_t 1, product 1 and writes dz 3, da 3, dh_t 1 (and the tap 1)
  Floor      that traffic, beside the product: 6 n H^2 operations

Persistent form, grid (ceil(H / units), groups of batch tiles), block (units, rows); all blocks on the device at once
  Block      `units` hidden units, 8, 16 or 32; of the tiles of `rows` sequences, every gridDim.y-th
  Shared     its slice of w_hh for the whole sequence, 3 H units numbers: forward the rows of its gates, backward its columns;
             and a chunk of each row of x: see ../cuda/numba_rows.py
  Registers  the sums: thread (unit, row of the tile) owns one unit of one row, and their order is that of k
  Global     h_t, dh_t (N, H), read and written by the one thread that owns them
  Step       forward reads h_{t-1} (n H numbers, by each of the H / units blocks) and per unit z 3, h_t 1, and writes gates 3, hn 1, h 1,
             h_t 1; backward reads da_{t+1} (3 n H, by each) and per unit gates 3, hn 1, h_{t-1} 1, dh 1, dh_t 1, and writes dz 3, da 3,
             dh_t 1 (and the tap 1). 6 n H^2 operations either way; one grid barrier, none where one block holds all units
  Floor      the larger of 6 n H^2 operations at the device's rate, and 4 numbers (forward; backward 6) read from shared memory for every 3
             multiply-adds; plus a barrier

An argument dh without rows means zero, and nobody asks for a tap without rows. All arrays are C-contiguous, and of one dtype, float32 or
float64, except for `first`, which is int32.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from minirnn.kernels.contract import Array, GRUGrads, GRUTape, check_packed
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
    multiply_3,
    previous,
    rows_or_none,
    seen_by_numba,
    sigmoid,
    steps,
    sum_of_columns,
)
from minirnn.kernels.cuda.packed import device_starts

taps = True


@cuda.jit(device=True)
def forward_unit(
    z_r: Any, z_u: Any, z_n: Any, a_r: Any, a_u: Any, a_n: Any, b_hn: Any, h_before: Any, row: int, j: int, h: Any, gates: Any, hn: Any
) -> Any:
    """Unit j of one row, (1.2) to (1.6), from the projection z, the product a of (1.1) and h_{t-1}. Returns h_t."""
    H, half = h.shape[1], h.dtype.type(0.5)
    r = sigmoid(z_r + a_r, half)  # (1.2)
    u = sigmoid(z_u + a_u, half)  # (1.3)
    hn_t = a_n + b_hn  # (1.4)
    n = math.tanh(z_n + r * hn_t)  # (1.5)
    h_t = n + u * (h_before - n)  # (1.6)
    gates[row, 0 * H + j] = r
    gates[row, 1 * H + j] = u
    gates[row, 2 * H + j] = n
    hn[row, j] = hn_t
    h[row, j] = h_t
    return h_t


@cuda.jit(device=True)
def backward_unit(dh_t: Any, h_before: Any, row: int, j: int, gates: Any, hn: Any, dh: Any, dz: Any, da: Any, dh_tap: Any) -> Any:
    """Unit j of one row, (2.2) to (2.6), from the dh_t of (2.1) and h_{t-1}. Returns dh_t u, the first half of (2.7)."""
    H, one = hn.shape[1], hn.dtype.type(1)
    r = gates[row, 0 * H + j]
    u = gates[row, 1 * H + j]
    n = gates[row, 2 * H + j]
    if dh.shape[0] > 0:
        dh_t += dh[row, j]  # (2.2)
    if dh_tap is not None and dh_tap.shape[0] > 0:
        dh_tap[row, j] = dh_t
    dz_n = dh_t * (one - u) * (one - n * n)  # (2.3)
    dz_u = dh_t * (h_before - n) * u * (one - u)  # (2.4)
    dz_r = dz_n * hn[row, j] * r * (one - r)  # (2.5)
    dz[row, 0 * H + j] = dz_r
    dz[row, 1 * H + j] = dz_u
    dz[row, 2 * H + j] = dz_n
    da[row, 0 * H + j] = dz_r
    da[row, 1 * H + j] = dz_u
    da[row, 2 * H + j] = dz_n * r  # (2.6)
    return dh_t * u


@cuda.jit
def gru_step_forward(z: Any, a: Any, b_hn: Any, h_t: Any, h: Any, gates: Any, hn: Any, start: int, n: int) -> None:
    """Step t, after a = h_{t-1} w_hh^T.

    z        (S, 3H)    read
    a        (N, 3H)    read, rows below n: the product, alive for this step
    b_hn     (H,)       read
    h_t      (N, H)     read and written, rows below n: h_{t-1}, then h_t; alive for the sequence
    h, hn    (S, H)     written, rows of this step
    gates    (S, 3H)    written, rows of this step
    start    first row of this step;  n  its rows
    """
    H, e = h.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j, row = e - sequence * H, start + sequence
    z_r, z_u, z_n = z[row, 0 * H + j], z[row, 1 * H + j], z[row, 2 * H + j]
    a_r, a_u, a_n = a[sequence, 0 * H + j], a[sequence, 1 * H + j], a[sequence, 2 * H + j]
    h_t[sequence, j] = forward_unit(z_r, z_u, z_n, a_r, a_u, a_n, b_hn[j], h_t[sequence, j], row, j, h, gates, hn)


@cuda.jit(device=True)
def step_backward(
    gates: Any,
    h: Any,
    hn: Any,
    h0: Any,
    dh: Any,
    product: Any,
    dh_t: Any,
    dz: Any,
    da: Any,
    dh_tap: Any,
    start: int,
    before: int,
    n: int,
    begun: int,
) -> None:
    """Both of the following; dh_tap may be None."""
    H, e = h.shape[1], cuda.grid(1)
    if e >= n * H:
        return
    sequence = e // H
    j = e - sequence * H
    h_before = h0[sequence, j] if before < 0 else h[before + sequence, j]
    whole = dh_t[sequence, j]  # (2.1)
    if sequence < begun:
        whole += product[sequence, j]  # (2.7)
    dh_t[sequence, j] = backward_unit(whole, h_before, start + sequence, j, gates, hn, dh, dz, da, dh_tap)


@cuda.jit
def gru_step_backward(
    gates: Any, h: Any, hn: Any, h0: Any, dh: Any, product: Any, dh_t: Any, dz: Any, da: Any, start: int, before: int, n: int, begun: int
) -> None:
    """Step t, before product = da_t w_hh.

    gates    (S, 3H)    read
    h, hn    (S, H)     read
    h0       (N, H)     read
    dh       (S, H)     read
    product  (N, H)     read, rows below begun: da_{t+1} w_hh, the second half of (2.7); alive from step to step
    dh_t     (N, H)     read and written, rows below n: dh_n where a sequence begins its way back, then dh_t u; alive for the sequence
    dz       (S, 3H)    written, rows of this step
    da       (S, 3H)    written, rows of this step
    start    first row of this step;  before  first row of the step before, -1 where h0 is before;  n  rows of this step
    begun    rows of step t + 1: the sequences that are on their way back
    """
    step_backward(gates, h, hn, h0, dh, product, dh_t, dz, da, None, start, before, n, begun)


@cuda.jit
def gru_step_backward_tapped(
    gates: Any,
    h: Any,
    hn: Any,
    h0: Any,
    dh: Any,
    product: Any,
    dh_t: Any,
    dz: Any,
    da: Any,
    dh_tap: Any,
    start: int,
    before: int,
    n: int,
    begun: int,
) -> None:
    """The same with taps, in a kernel of its own: so the other has the registers of one without.

    gates    (S, 3H)    read
    h, hn    (S, H)     read
    h0       (N, H)     read
    dh       (S, H)     read
    product  (N, H)     read, rows below begun: da_{t+1} w_hh, the second half of (2.7); alive from step to step
    dh_t     (N, H)     read and written, rows below n: dh_n where a sequence begins its way back, then dh_t u; alive for the sequence
    dz       (S, 3H)    written, rows of this step
    da       (S, 3H)    written, rows of this step
    dh_tap   (S, H)     written, rows of this step: the whole dL/dh_t of (2.2)
    start    first row of this step;  before  first row of the step before, -1 where h0 is before;  n  rows of this step
    begun    rows of step t + 1: the sequences that are on their way back
    """
    step_backward(gates, h, hn, h0, dh, product, dh_t, dz, da, dh_tap, start, before, n, begun)


@cuda.jit
def gru_persistent_forward(z: Any, w_hh: Any, b_hn: Any, h0: Any, h_t: Any, first: Any, h: Any, gates: Any, hn: Any) -> None:
    """All steps forward.

    z        (S, 3H)    read
    w_hh     (3H, H)    read once
    b_hn     (H,)       read
    h0       (N, H)     read
    h_t      (N, H)     h0 on entry, h_n on return
    first    (T + 1,)   int32, read: the first row of every step, and S
    h, hn    (S, H)     written; h is read one step later by all blocks
    gates    (S, 3H)    written
    """
    T, H = first.shape[0] - 1, h0.shape[1]
    j = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    memory = cuda.shared.array(0, z.dtype)
    w, x = memory[: 3 * H * cuda.blockDim.x], memory[3 * H * cuda.blockDim.x :]
    load_rows(w, w_hh, 3)

    for t in range(T):
        start = first[t]
        running = first[t + 1] - start
        before = first[t - 1] if t > 0 else 0
        h_before = h if t > 0 else h0
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, running, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + cuda.threadIdx.y
            a_r, a_u, a_n = multiply_3(w, x, h_before, before + sequence, sequence < running)  # (1.1)
            if sequence < running and j < H:
                row = start + sequence
                z_r, z_u, z_n = z[row, 0 * H + j], z[row, 1 * H + j], z[row, 2 * H + j]
                h_t[sequence, j] = forward_unit(z_r, z_u, z_n, a_r, a_u, a_n, b_hn[j], h_t[sequence, j], row, j, h, gates, hn)
        if t + 1 < T and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # h_t is there for all


@cuda.jit
def gru_persistent_backward(
    gates: Any, h: Any, hn: Any, h0: Any, w_hh: Any, dh: Any, dh_t: Any, first: Any, dz: Any, da: Any, dh0: Any, dh_tap: Any
) -> None:
    """All steps backward.

    gates    (S, 3H)    read
    h, hn    (S, H)     read
    h0       (N, H)     read
    w_hh     (3H, H)    read once
    dh       (S, H)     read
    dh_t     (N, H)     dh_n on entry; alive for the sequence
    first    (T + 1,)   int32, read: the first row of every step, and S
    dz       (S, 3H)    written
    da       (S, 3H)    written, and read one step later by all blocks
    dh0      (N, H)     written
    dh_tap   (S, H)     written: the whole dL/dh_t of (2.2)
    """
    T, H = first.shape[0] - 1, h0.shape[1]
    j = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    memory = cuda.shared.array(0, h.dtype)
    w, x = memory[: 3 * H * cuda.blockDim.x], memory[3 * H * cuda.blockDim.x :]
    load_columns(w, w_hh)

    for t in range(T - 1, -2, -1):  # at t = -1 dh0 is left to do
        after = first[t + 1]
        begun = first[t + 2] - after if t + 1 < T else 0  # rows of step t + 1: the sequences that are on their way back
        start = first[t] if t >= 0 else 0
        running = after - start if t >= 0 else begun
        for tile in range(cuda.blockDim.y * cuda.blockIdx.y, running, cuda.blockDim.y * cuda.gridDim.y):
            sequence = tile + cuda.threadIdx.y
            whole = h.dtype.type(0)
            if tile < begun:
                whole = multiply_1(w, x, da, after + sequence, sequence < begun)  # (2.7)
            if sequence < running and j < H:
                whole += dh_t[sequence, j]  # (2.1)
                if t >= 0:
                    h_before = h[first[t - 1] + sequence, j] if t > 0 else h0[sequence, j]
                    dh_t[sequence, j] = backward_unit(whole, h_before, start + sequence, j, gates, hn, dh, dz, da, dh_tap)
                else:
                    dh0[sequence, j] = whole  # (2.10)
        if t >= 0 and cuda.gridDim.x > 1:
            cuda.cg.this_grid().sync()  # da_t is there for all


def forward(z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array) -> GRUTape:
    """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H) on the device, batch_sizes (T,) on the host; all float32 or all float64"""
    check_packed("GRU", 3, z, w_hh, batch_sizes, b_hn=b_hn, h0=h0)
    xp, (S, H) = module_of(z), (len(z), w_hh.shape[1])
    h, hn = xp.empty((S, H), z.dtype), xp.empty((S, H), z.dtype)
    gates = xp.empty((S, 3 * H), z.dtype)
    h_t = h0.copy()  # (N, H) h_{t-1}; the rows of a sequence that has ended stay as they are
    plan = persistent(xp, "gru", "forward", h0)
    if plan is not None:
        stream, *arrays = seen_by_numba(xp, z, w_hh, b_hn, h0, h_t, device_starts(xp, batch_sizes), h, gates, hn)
        launch_cooperatively(gru_persistent_forward, plan, stream, *arrays)
        return GRUTape(h, gates, hn, h_t, h0, batch_sizes)

    a = xp.empty((len(h0), 3 * H), z.dtype)
    stream, *arrays = seen_by_numba(xp, z, a, b_hn, h_t, h, gates, hn)
    h_before = h0
    for start, n, _ in steps(batch_sizes):
        xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, 3H)  (1.1)
        launch(gru_step_forward, blocks_of(n * H), THREADS, stream, *arrays, start, n)
        h_before = h[start : start + n]  # (n, H)
    return GRUTape(h, gates, hn, h_t, h0, batch_sizes)


def backward(tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None, taps: tuple[Array] | None = None) -> GRUGrads:
    """dh (S, H), dh_n (N, H), None means zero; taps: one (S, H) for the whole dL/dh_t of every row"""
    xp, H, batch_sizes = module_of(w_hh), w_hh.shape[1], tape.batch_sizes
    dh = rows_or_none(xp, dh, w_hh)  # (S, H), or no rows
    dz, da = xp.empty_like(tape.gates), xp.empty_like(tape.gates)  # (S, 3H)
    # (N, H) dL/dh_t on its way back, of (2.7) the half that u hands on; a sequence's rows wait until its own last step (2.1)
    dh_t = xp.zeros_like(tape.h0) if dh_n is None else xp.array(dh_n, order="C")
    first = device_starts(xp, batch_sizes)  # (T+1,)
    plan = persistent(xp, "gru", "backward", tape.h0)
    if plan is not None:
        dh0, into = xp.empty_like(tape.h0), taps or (rows_or_none(xp, None, w_hh),)  # (N, H)
        stream, *arrays = seen_by_numba(xp, tape.gates, tape.h, tape.hn, tape.h0, w_hh, dh, dh_t, first, dz, da, dh0, *into)
        launch_cooperatively(gru_persistent_backward, plan, stream, *arrays)
    else:
        product = xp.empty_like(tape.h0)  # (N, H) da_{t+1} @ w_hh
        stream, *arrays = seen_by_numba(xp, tape.gates, tape.h, tape.hn, tape.h0, dh, product, dh_t, dz, da, *(taps or ()))
        step = gru_step_backward_tapped if taps else gru_step_backward
        before = [-1, *(start for start, _, _ in steps(batch_sizes))]
        for t, (start, n, begun) in reversed(list(enumerate(steps(batch_sizes)))):
            launch(step, blocks_of(n * H), THREADS, stream, *arrays, start, before[t], n, begun)
            xp.matmul(da[start : start + n], w_hh, out=product[:n])  # (n, H)  (2.7)
        dh0 = dh_t + product  # (N, H)
    dw_hh = xp.matmul(da.T, previous(xp, tape.h, tape.h0, first))  # (3H, H)  (2.8)
    db_hn = sum_of_columns(xp, da, H)  # (H,)  (2.9)
    return GRUGrads(dz, dw_hh, db_hn, dh0)  # (2.10)
