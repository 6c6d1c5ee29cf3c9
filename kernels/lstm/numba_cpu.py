"""The LSTM recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

P threads share the work inside one compiled function, in one of two ways (`workers.plan` chooses by the sizes alone):

    by sequences   they are dealt out like cards: thread p takes p, p + P, p + 2P, ... through all time steps, which shares ragged batches
                   evenly; no thread waits for another
    by units       each takes the hidden units of some panels of `w_hh`, all four gates of them, for all sequences, so that a part of `w_hh`
                   stays in its core's cache; all meet once a step

A step is a product of the rows with `w_hh`, packed once per call, panel by panel, and the equations for the panel's units while its sums
are in cache. Every number is computed in the same way, whoever does it: the bits do not depend on P or on the way of sharing.

Per row and step the forward pass reads z (4H numbers), h_{t-1}, c_{t-1} and writes the gates (4H), c, h; w_hh (4 H^2) is read from cache
once per six rows. Its product takes 8 H^2 operations. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, LSTMGrads, LSTMTape, check_packed
from minirnn.kernels.handoff import meet, part
from minirnn.kernels.matmul.numba_cpu import multiply
from minirnn.kernels.packed import weight_gradient
from minirnn.kernels.pointwise import sigmoid, tanh
from minirnn.kernels.product import columns_into, empty, gates_into, lanes, multiply_4, padded
from minirnn.kernels.rows import rows_into
from minirnn.kernels.vectors import lanes_of, load, pointer, store

in_place = True
taps = True


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array, out: Array | None = None) -> LSTMTape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,); all float32 or all float64; out (S, 4H) for the gates, may be z"""
    check_packed("LSTM", 4, z, w_hh, batch_sizes, h0=h0, c0=c0)
    (N, H), S, dtype = h0.shape, len(z), z.dtype
    h, c = np.empty((S, H), dtype), np.empty((S, H), dtype)
    h_n, c_n = np.empty((N, H), dtype), np.empty((N, H), dtype)
    gates = np.empty((S, 4 * H), dtype) if out is None else out
    P, by_units, wake = workers.plan(N, H, 4, S, dtype)
    panels = empty(4 * padded(H, lanes(dtype)) * H, dtype)
    a = empty(P * 4 * max(N * lanes(dtype), padded(H, lanes(dtype))), dtype).reshape(P, -1)
    counter = np.zeros(1, np.int64)
    workers.run(_forward, P, by_units, z, w_hh, h0, c0, batch_sizes, gates, c, h, c_n, h_n, panels, a, counter, worth_waking=wake)
    return LSTMTape(h, c, gates, h_n, c_n, h0, c0, batch_sizes)


def backward(
    tape: LSTMTape,
    w_hh: Array,
    dh: Array | None,
    dc: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    out: Array | None = None,
    taps: tuple[Array, Array] | None = None,
) -> LSTMGrads:
    """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H), None means zero; out (S, 4H) for dz, may be tape.gates; taps: two (S, H) for the
    whole dL/dh_t and dL/dc_t of every row"""
    (N, H), S, dtype = tape.h0.shape, len(tape.h), w_hh.dtype
    dz = np.empty((S, 4 * H), dtype) if out is None else out
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back (2.1)
    dc0 = np.zeros((N, H), dtype) if dc_n is None else dc_n.copy()  # (N, H) dL/dc_t
    none = np.empty((0, H), dtype)
    dh = none if dh is None else np.ascontiguousarray(dh)
    dc = none if dc is None else np.ascontiguousarray(dc)
    all_dh, all_dc = (none, none) if taps is None else taps
    P, by_units, wake = workers.plan(N, H, 4, S, dtype)
    width = padded(H, 4 * lanes(dtype))
    panels, dh_t = empty(4 * H * width, dtype), empty(N * width, dtype)
    counter = np.zeros(1, np.int64)
    workers.run(
        _backward,
        P,
        by_units,
        tape.gates,
        tape.c,
        tape.c0,
        w_hh,
        tape.batch_sizes,
        dh,
        dc,
        dh0,
        dc0,
        panels,
        dh_t,
        dz,
        all_dh,
        all_dc,
        counter,
        worth_waking=wake,
    )
    dw_hh = weight_gradient(multiply, dz, tape.h, tape.h0, tape.batch_sizes)  # (4H, H)  (2.11)
    return LSTMGrads(dz, dw_hh, dh0, dc0)  # (2.12)


def gates(a: Array) -> None:
    """i, f, g, o in place of a = z + h_{t-1} w_hh^T (S, 4H)"""
    workers.run(_gates_of_rows, workers.threads(50 * a.size), a, worth_waking=a.size > workers.WORTH / 100)


def step(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> tuple[Array, Array]:
    """h_t, c_t (N, H) from x (N, D), h, c (N, H), w_ih (4H, D), w_hh (4H, H), b_ih, b_hh (4H,)"""
    N, H = h.shape
    a = np.zeros((N, 4 * H), x.dtype)
    h_t, c_t = np.empty_like(h), np.empty_like(c)
    none = x[0, :0]
    operations = 2 * (N + 1) * (w_ih.size + w_hh.size)  # reading the weights takes as long as one row
    b_ih, b_hh = none if b_ih is None else b_ih, none if b_hh is None else b_hh
    P, worth_waking = workers.threads(operations), operations > workers.WORTH_WAKING
    workers.run(_step, P, x, h, c, w_ih, w_hh, b_ih, b_hh, a, h_t, c_t, worth_waking=worth_waking)
    return h_t, c_t


@compiled(error_model="numpy")
def _forward(
    p: int,
    P: int,
    by_units: bool,
    z: Array,
    w_hh: Array,
    h0: Array,
    c0: Array,
    batch_sizes: Array,
    gates: Array,
    c: Array,
    h: Array,
    c_n: Array,
    h_n: Array,
    panels: Array,
    a: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps. a (P, ...): a thread's own h_{t-1} w_hh^T, for the rows of one panel or the panels of one row."""
    H, L = h0.shape[1], lanes_of(h0)
    count = panels.size // (4 * H * L)
    gates_into(w_hh.reshape(-1), 4, H, H, panels, count * p // P, count * (p + 1) // P)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    z, gates, c, h, c_n, h_n, a = pointer(z), pointer(gates), pointer(c), pointer(h), pointer(c_n), pointer(h_n), pointer(a[p])
    h_before, c_before, at, start = pointer(h0), pointer(c0), 0, 0
    for t in range(len(batch_sizes)):
        n = (batch_sizes[t] - q + stride - 1) // stride  # rows of this thread
        going_on = batch_sizes[t + 1] if t + 1 < len(batch_sizes) else 0
        panel = first
        while panel < last and n > 0:
            end, a_panel = (panel + 1, 0) if n > 1 else (last, 4 * L)
            multiply_4(h_before, (at + q) * H, stride * H, n, H, panels, count, a, a_panel, 4 * L, L, panel, end)  # (1.1)
            for r in range(n):
                sequence = q + r * stride
                row, before = start + sequence, at + sequence
                for j in range(panel * L, end * L, L):
                    of_a = j * 4 if n == 1 else r * 4 * L
                    if j + L <= H:
                        _cell(H, L, row, before, j, None, z, a, of_a, c_before, gates, c, h)
                    else:
                        _cell(H, L, row, before, j, H - j, z, a, of_a, c_before, gates, c, h)
                    if sequence >= going_on:
                        store(h_n, sequence * H + j, load(h, row * H + j, H - j), H - j)
                        store(c_n, sequence * H + j, load(c, row * H + j, H - j), H - j)
            panel = end
        if by_units:
            meet(counter, (t + 2) * P)
        h_before, c_before, at = h, c, start
        start += batch_sizes[t]


@njit(error_model="numpy")
def _gates(a_i: float, a_f: float, a_g: float, a_o: float) -> tuple[float, float, float, float]:
    i = sigmoid(a_i)  # (1.2)
    f = sigmoid(a_f)  # (1.3)
    g = tanh(a_g)  # (1.4)
    o = sigmoid(a_o)  # (1.5)
    return i, f, g, o


@njit(error_model="numpy")
def _states(i: float, f: float, g: float, o: float, c_before: float) -> tuple[float, float]:
    c = f * c_before + i * g  # (1.6)
    h = o * tanh(c)  # (1.7)
    return c, h


@njit(error_model="numpy")
def _cell(
    H: int,
    L: int,
    row: int,
    before: int,
    j: int,
    left: int | None,
    z: Array,
    a: Array,
    of_a: int,
    c_before: Array,
    gates: Array,
    c: Array,
    h: Array,
) -> None:
    """The units j .. j + L - 1 of one row."""
    at = row * 4 * H + j
    a_i = load(z, at, left) + load(a, of_a, None)
    a_f = load(z, at + H, left) + load(a, of_a + L, None)
    a_g = load(z, at + 2 * H, left) + load(a, of_a + 2 * L, None)
    a_o = load(z, at + 3 * H, left) + load(a, of_a + 3 * L, None)
    i, f, g, o = _gates(a_i, a_f, a_g, a_o)
    c_t, h_t = _states(i, f, g, o, load(c_before, before * H + j, left))
    store(gates, at, i, left)
    store(gates, at + H, f, left)
    store(gates, at + 2 * H, g, left)
    store(gates, at + 3 * H, o, left)
    store(c, row * H + j, c_t, left)
    store(h, row * H + j, h_t, left)


@compiled(error_model="numpy")
def _backward(
    p: int,
    P: int,
    by_units: bool,
    gates: Array,
    c: Array,
    c0: Array,
    w_hh: Array,
    batch_sizes: Array,
    dh: Array,
    dc: Array,
    dh0: Array,
    dc_t: Array,
    panels: Array,
    dh_t: Array,
    dz: Array,
    all_dh: Array,
    all_dc: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps, backwards. dc_t (N, H) ends as dc0; dh_t (N, H padded) is copied from and to dh0; all_dh, all_dc
    (S, H) get every row of them, or are empty."""
    (N, H), L = dh0.shape, lanes_of(dh0)
    width = dh_t.size // N
    count = width // (4 * L)
    columns_into(w_hh.reshape(-1), 4, 4 * H, H, panels, count * p // P, count * (p + 1) // P)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    unit, until = first * 4 * L, min(last * 4 * L, H)
    for sequence in range(q, N, stride):
        for j in range(unit, until):
            dh_t[sequence * width + j] = dh0[sequence, j]
    start, has_dh, has_dc, has_taps = len(c), dh.size > 0, dc.size > 0, all_dh.size > 0
    one = c.dtype.type(1)
    of_gates, of_c, of_c0, of_dc_t, of_dh_t, of_dz = pointer(gates), pointer(c), pointer(c0), pointer(dc_t), pointer(dh_t), pointer(dz)
    of_dh, of_dc, own, of_all_dh, of_all_dc = pointer(dh), pointer(dc), pointer(dh_t[q * width :]), pointer(all_dh), pointer(all_dc)
    for t in range(len(batch_sizes) - 1, -1, -1):
        start -= batch_sizes[t]
        at = start - batch_sizes[t - 1] if t > 0 else 0
        c_before = of_c if t > 0 else of_c0
        n = (batch_sizes[t] - q + stride - 1) // stride  # rows of this thread
        for sequence in range(q, batch_sizes[t], stride):
            row, before = start + sequence, at + sequence
            for j in range(unit, until, L):
                state, of_dh_row = sequence * H + j, sequence * width + j
                dh_row, dc_row = load(of_dh_t, of_dh_row, None), load(of_dc_t, state, H - j)
                if has_dh:
                    dh_row = dh_row + load(of_dh, row * H + j, H - j)  # (2.2)
                if has_dc:
                    dc_row = dc_row + load(of_dc, row * H + j, H - j)  # (2.3)
                if j + L <= H:
                    dc_row = _cell_backward(H, row, before, j, None, one, of_gates, of_c, c_before, dh_row, dc_row, of_dc_t, state, of_dz)
                else:
                    dc_row = _cell_backward(H, row, before, j, H - j, one, of_gates, of_c, c_before, dh_row, dc_row, of_dc_t, state, of_dz)
                if has_taps:
                    store(of_all_dh, row * H + j, dh_row, H - j)
                    store(of_all_dc, row * H + j, dc_row, H - j)
        if by_units:
            meet(counter, (len(batch_sizes) - t + 1) * P)
        if n > 0 and last > first:
            of_row = (start + q) * 4 * H
            multiply_4(of_dz, of_row, stride * 4 * H, n, 4 * H, panels, count, own, 4 * L, stride * width, L, first, last)  # (2.10)
    for sequence in range(q, N, stride):
        for j in range(unit, until):
            dh0[sequence, j] = dh_t[sequence * width + j]


@njit(error_model="numpy")
def _cell_backward(
    H: int,
    row: int,
    before: int,
    j: int,
    left: int | None,
    one: float,
    gates: Array,
    c: Array,
    c_before: Array,
    dh_row: Array,
    dc_row: Array,
    dc_t: Array,
    state: int,
    dz: Array,
) -> Array:
    """The units j .. j + L - 1 of one row; dz may be the gates. Returns the whole dL/dc_t."""
    at = row * 4 * H + j
    i, f, g, o = load(gates, at, left), load(gates, at + H, left), load(gates, at + 2 * H, left), load(gates, at + 3 * H, left)
    tanh_c = tanh(load(c, row * H + j, left))
    da_o = dh_row * tanh_c * o * (one - o)  # (2.4)
    dc_row = dc_row + dh_row * o * (one - tanh_c * tanh_c)  # (2.5)
    da_i = dc_row * g * i * (one - i)  # (2.6)
    da_f = dc_row * load(c_before, before * H + j, left) * f * (one - f)  # (2.7)
    da_g = dc_row * i * (one - g * g)  # (2.8)
    store(dc_t, state, dc_row * f, left)  # (2.9)
    store(dz, at, da_i, left)
    store(dz, at + H, da_f, left)
    store(dz, at + 2 * H, da_g, left)
    store(dz, at + 3 * H, da_o, left)
    return dc_row


@compiled(error_model="numpy")
def _gates_of_rows(p: int, P: int, a: Array) -> None:
    """In place, for the p-th part of the rows."""
    S, H, L = len(a), a.shape[1] // 4, lanes_of(a)
    a = pointer(a)
    for row in range(S * p // P, S * (p + 1) // P):
        for j in range(0, H, L):
            if j + L <= H:
                _gates_in_place(H, row, j, None, a)
            else:
                _gates_in_place(H, row, j, H - j, a)


@njit(error_model="numpy")
def _gates_in_place(H: int, row: int, j: int, left: int | None, a: Array) -> None:
    at = row * 4 * H + j
    i, f, g, o = _gates(load(a, at, left), load(a, at + H, left), load(a, at + 2 * H, left), load(a, at + 3 * H, left))
    store(a, at, i, left)
    store(a, at + H, f, left)
    store(a, at + 2 * H, g, left)
    store(a, at + 3 * H, o, left)


@compiled(error_model="numpy")
def _step(
    p: int,
    P: int,
    x: Array,
    h: Array,
    c: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array,
    b_hh: Array,
    a: Array,
    h_t: Array,
    c_t: Array,
) -> None:
    """One step of the p-th part of the units. a (N, 4H), zeros at first."""
    (N, H), L = h.shape, lanes_of(h)
    count = (H + L - 1) // L  # vectors of units
    unit, until = count * p // P * L, min(count * (p + 1) // P * L, H)
    for gate in range(4):
        rows_into(w_ih, gate * H + unit, gate * H + until, x, b_ih, a)
        rows_into(w_hh, gate * H + unit, gate * H + until, h, b_hh, a)  # (1.1)
    a, c, c_t, h_t = pointer(a), pointer(c), pointer(c_t), pointer(h_t)
    for n in range(N):
        for j in range(unit, until, L):
            if j + L <= H:
                _step_of_units(H, n, j, None, a, c, c_t, h_t)
            else:
                _step_of_units(H, n, j, H - j, a, c, c_t, h_t)


@njit(error_model="numpy")
def _step_of_units(H: int, n: int, j: int, left: int | None, a: Array, c_before: Array, c: Array, h: Array) -> None:
    at = n * 4 * H + j
    i, f, g, o = _gates(load(a, at, left), load(a, at + H, left), load(a, at + 2 * H, left), load(a, at + 3 * H, left))
    c_t, h_t = _states(i, f, g, o, load(c_before, n * H + j, left))
    store(c, n * H + j, c_t, left)
    store(h, n * H + j, h_t, left)
