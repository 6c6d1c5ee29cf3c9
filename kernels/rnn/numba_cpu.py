"""The plain recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

As in the LSTM's, P threads share the sequences or the hidden units inside one compiled function. A step is a product of the rows with
`w_hh`, packed once per call, panel by panel, and the nonlinearity of the panel's units while its sums are in cache. The bits do not depend
on P or on the way of sharing. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, RNNGrads, RNNTape, check_nonlinearity, check_packed
from minirnn.kernels.handoff import meet, part
from minirnn.kernels.matmul.numba_cpu import multiply
from minirnn.kernels.packed import weight_gradient
from minirnn.kernels.pointwise import tanh
from minirnn.kernels.product import columns_into, empty, lanes, multiply_4, padded
from minirnn.kernels.rows import rows_into
from minirnn.kernels.tile import transpose
from minirnn.kernels.vectors import at_most, lanes_of, load, pointer, store

in_place = True
taps = True


def forward(z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh", out: Array | None = None) -> RNNTape:
    """z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,), nonlinearity "tanh" or "relu"; all float32 or all float64; out (S, H) for h, may
    be z"""
    check_packed("RNN", 1, z, w_hh, batch_sizes, h0=h0)
    check_nonlinearity(nonlinearity)
    (N, H), dtype = h0.shape, z.dtype
    h = np.empty_like(z) if out is None else out  # (S, H)
    h_n = np.empty((N, H), dtype)
    P, by_units, wake = workers.plan(N, H, 1, len(z), dtype)
    width = padded(H, 4 * lanes(dtype))
    panels = empty(H * width, dtype)
    a = empty(P * max(N * 4 * lanes(dtype), width), dtype).reshape(P, -1)
    is_tanh = nonlinearity == "tanh"
    counter = np.zeros(1, np.int64)
    workers.run(_forward, P, by_units, z, w_hh, h0, batch_sizes, is_tanh, h, h_n, panels, a, counter, worth_waking=wake)
    return RNNTape(h, h_n, h0, batch_sizes, nonlinearity)


def backward(
    tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None, taps: tuple[Array] | None = None
) -> RNNGrads:
    """dh (S, H), dh_n (N, H), None means zero; out (S, H) for dz; taps: one (S, H) for the whole dL/dh_t of every row"""
    (N, H), dtype = tape.h0.shape, w_hh.dtype
    dz = np.empty_like(tape.h) if out is None else out  # (S, H)
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back              (2.1)
    none = np.empty((0, H), dtype)
    dh = none if dh is None else np.ascontiguousarray(dh)
    (all_dh,) = (none,) if taps is None else taps
    P, by_units, wake = workers.plan(N, H, 1, len(dz), dtype)
    width = padded(H, 4 * lanes(dtype))
    panels, dh_t = empty(H * width, dtype), empty(N * width, dtype)
    is_tanh = tape.nonlinearity == "tanh"
    counter = np.zeros(1, np.int64)
    arrays = (tape.h, w_hh, tape.batch_sizes, is_tanh, dh, dh0, panels, dh_t, dz, all_dh)
    workers.run(_backward, P, by_units, *arrays, counter, worth_waking=wake)
    dw_hh = weight_gradient(multiply, dz, tape.h, tape.h0, tape.batch_sizes)  # (H, H)  (2.5)
    return RNNGrads(dz, dw_hh, dh0)  # (2.6)


def step(
    x: Array,
    h: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    nonlinearity: str = "tanh",
) -> Array:
    """h_t (N, H) from x (N, D), h (N, H), w_ih (H, D), w_hh (H, H), b_ih, b_hh (H,)"""
    check_nonlinearity(nonlinearity)
    a, h_t, none = np.zeros_like(h), np.empty_like(h), x[0, :0]
    operations = 2 * (len(h) + 1) * (w_ih.size + w_hh.size)  # reading the weights takes as long as one row
    b_ih, b_hh = none if b_ih is None else b_ih, none if b_hh is None else b_hh
    P, worth_waking = workers.threads(operations), operations > workers.WORTH_WAKING
    workers.run(_step, P, x, h, w_ih, w_hh, b_ih, b_hh, nonlinearity == "tanh", a, h_t, worth_waking=worth_waking)
    return h_t


@compiled(error_model="numpy")
def _forward(
    p: int,
    P: int,
    by_units: bool,
    z: Array,
    w_hh: Array,
    h0: Array,
    batch_sizes: Array,
    is_tanh: bool,
    h: Array,
    h_n: Array,
    panels: Array,
    a: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps. a (P, ...): a thread's own h_{t-1} w_hh^T, for the rows of one panel or the panels of one row."""
    H, L = h0.shape[1], lanes_of(h0)
    count = panels.size // (4 * H * L)
    for j in range(4 * (count * p // P) * L, 4 * (count * (p + 1) // P) * L, L):  # panels of w_hh^T: 4 L units, for one k after the other
        for k in range(0, H, L):
            transpose(w_hh, j * H + k, H, H - j, H - k, panels, (j // (4 * L) * H + k) * 4 * L + j % (4 * L), 4 * L)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    zero = h.dtype.type(0)
    z, h, h_n, a = pointer(z), pointer(h), pointer(h_n), pointer(a[p])
    h_before, at, start = pointer(h0), 0, 0
    for t in range(len(batch_sizes)):
        n = (batch_sizes[t] - q + stride - 1) // stride  # rows of this thread
        going_on = batch_sizes[t + 1] if t + 1 < len(batch_sizes) else 0
        panel = first
        while panel < last and n > 0:
            end, a_panel = (panel + 1, 0) if n > 1 else (last, 4 * L)
            multiply_4(h_before, (at + q) * H, stride * H, n, H, panels, count, a, a_panel, 4 * L, L, panel, end)  # (1.1)
            for r in range(n):
                sequence = q + r * stride
                row = start + sequence
                for j in range(panel * 4 * L, min(end * 4 * L, H), L):
                    of_a = j if n == 1 else r * 4 * L + j - panel * 4 * L
                    if j + L <= H:
                        _cell(is_tanh, zero, row * H + j, None, z, a, of_a, h)
                    else:
                        _cell(is_tanh, zero, row * H + j, H - j, z, a, of_a, h)
                    if sequence >= going_on:
                        store(h_n, sequence * H + j, load(h, row * H + j, H - j), H - j)
            panel = end
        if by_units:
            meet(counter, (t + 2) * P)
        h_before, at = h, start
        start += batch_sizes[t]


@njit(error_model="numpy")
def _cell(is_tanh: bool, zero: float, at: int, left: int | None, z: Array, a: Array, of_a: int, h: Array) -> None:
    """The L units of one row from element `at` on."""
    store(h, at, _phi(is_tanh, load(z, at, left) + load(a, of_a, None), zero), left)  # (1.2)


@njit(error_model="numpy")
def _phi(is_tanh: bool, x: float, zero: float) -> float:
    return tanh(x) if is_tanh else at_most(x, zero, zero, x)


@compiled(error_model="numpy")
def _backward(
    p: int,
    P: int,
    by_units: bool,
    h: Array,
    w_hh: Array,
    batch_sizes: Array,
    is_tanh: bool,
    dh: Array,
    dh0: Array,
    panels: Array,
    dh_t: Array,
    dz: Array,
    all_dh: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps, backwards. dh_t (N, H padded) is copied from and to dh0; all_dh (S, H) gets its
    every row, or is empty."""
    (N, H), L = dh0.shape, lanes_of(dh0)
    width = dh_t.size // N
    count = width // (4 * L)
    columns_into(w_hh.reshape(-1), 4, H, H, panels, count * p // P, count * (p + 1) // P)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    unit, until = first * 4 * L, min(last * 4 * L, H)
    for sequence in range(q, N, stride):
        for j in range(unit, until):
            dh_t[sequence * width + j] = dh0[sequence, j]
    start, has_dh, has_taps = len(h), dh.size > 0, all_dh.size > 0
    zero, one = h.dtype.type(0), h.dtype.type(1)
    of_h, of_dh, of_dh_t, own, of_dz = pointer(h), pointer(dh), pointer(dh_t), pointer(dh_t[q * width :]), pointer(dz)
    of_all_dh = pointer(all_dh)
    for t in range(len(batch_sizes) - 1, -1, -1):
        start -= batch_sizes[t]
        n = (batch_sizes[t] - q + stride - 1) // stride  # rows of this thread
        for sequence in range(q, batch_sizes[t], stride):
            row = start + sequence
            for j in range(unit, until, L):
                dh_row = load(of_dh_t, sequence * width + j, None)
                if has_dh:
                    dh_row = dh_row + load(of_dh, row * H + j, H - j)  # (2.2)
                if has_taps:
                    store(of_all_dh, row * H + j, dh_row, H - j)
                if j + L <= H:
                    _cell_backward(is_tanh, zero, one, row * H + j, None, of_h, dh_row, of_dz)
                else:
                    _cell_backward(is_tanh, zero, one, row * H + j, H - j, of_h, dh_row, of_dz)
        if by_units:
            meet(counter, (len(batch_sizes) - t + 1) * P)
        if n > 0 and last > first:
            multiply_4(of_dz, (start + q) * H, stride * H, n, H, panels, count, own, 4 * L, stride * width, L, first, last)  # (2.4)
    for sequence in range(q, N, stride):
        for j in range(unit, until):
            dh0[sequence, j] = dh_t[sequence * width + j]


@njit(error_model="numpy")
def _cell_backward(is_tanh: bool, zero: float, one: float, at: int, left: int | None, h: Array, dh_row: Array, dz: Array) -> None:
    """The L units of one row from element `at` on."""
    h_t = load(h, at, left)
    store(dz, at, dh_row * (one - h_t * h_t) if is_tanh else at_most(h_t, zero, zero, dh_row), left)  # (2.3)


@compiled(error_model="numpy")
def _step(
    p: int,
    P: int,
    x: Array,
    h: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array,
    b_hh: Array,
    is_tanh: bool,
    a: Array,
    h_t: Array,
) -> None:
    """One step of the p-th part of the units. a (N, H), zeros at first."""
    (N, H), L = h.shape, lanes_of(h)
    count = (H + L - 1) // L  # vectors of units
    unit, until = count * p // P * L, min(count * (p + 1) // P * L, H)
    rows_into(w_ih, unit, until, x, b_ih, a)
    rows_into(w_hh, unit, until, h, b_hh, a)  # (1.1)
    zero = h.dtype.type(0)
    a, h_t = pointer(a), pointer(h_t)
    for n in range(N):
        for j in range(unit, until, L):
            store(h_t, n * H + j, _phi(is_tanh, load(a, n * H + j, H - j), zero), H - j)  # (1.2)
