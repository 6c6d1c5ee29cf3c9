"""The GRU recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

As in the LSTM's, P threads share the sequences or the hidden units inside one compiled function. A step is a product of the rows with
`w_hh`, packed once per call, panel by panel, and the equations for the panel's units while its sums are in cache. The bits do not depend on
P or on the way of sharing.

Per row and step the forward pass reads z (3H numbers) and h_{t-1} and writes the gates (3H), hn and h; the backward pass reads these and
writes dz and da (3H each). The products are 6 H^2 operations each, the gates about 80 H. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, GRUGrads, GRUTape, check_packed
from minirnn.kernels.handoff import meet, part
from minirnn.kernels.matmul.numba_cpu import multiply
from minirnn.kernels.packed import weight_gradient
from minirnn.kernels.pointwise import sigmoid, tanh
from minirnn.kernels.product import columns_into, empty, gates_into, lanes, multiply_3, multiply_4, padded
from minirnn.kernels.rows import rows_into
from minirnn.kernels.vectors import lanes_of, load, pointer, store, zeros

in_place = True
taps = True


def forward(z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array, out: Array | None = None) -> GRUTape:
    """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,); all float32 or all float64; out (S, 3H) for the gates, may be z"""
    check_packed("GRU", 3, z, w_hh, batch_sizes, b_hn=b_hn, h0=h0)
    (N, H), S, dtype = h0.shape, len(z), z.dtype
    h, hn, h_n = np.empty((S, H), dtype), np.empty((S, H), dtype), np.empty((N, H), dtype)
    gates = np.empty((S, 3 * H), dtype) if out is None else out
    P, by_units, wake = workers.plan(N, H, 3, S, dtype)
    panels = empty(3 * padded(H, lanes(dtype)) * H, dtype)
    a = empty(P * 3 * max(N * lanes(dtype), padded(H, lanes(dtype))), dtype).reshape(P, -1)
    counter = np.zeros(1, np.int64)
    workers.run(_forward, P, by_units, z, w_hh, b_hn, h0, batch_sizes, gates, hn, h, h_n, panels, a, counter, worth_waking=wake)
    return GRUTape(h, gates, hn, h_n, h0, batch_sizes)


def backward(
    tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None, taps: tuple[Array] | None = None
) -> GRUGrads:
    """dh (S, H), dh_n (N, H), None is zero; out (S, 3H) for dz, may be tape.gates; taps: one (S, H) for the whole dL/dh_t of every row"""
    (N, H), S, dtype = tape.h0.shape, len(tape.h), w_hh.dtype
    dz = np.empty((S, 3 * H), dtype) if out is None else out
    da = np.empty((S, 3 * H), dtype)
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back              (2.1)
    none = np.empty((0, H), dtype)
    dh = none if dh is None else np.ascontiguousarray(dh)
    (all_dh,) = (none,) if taps is None else taps
    P, by_units, wake = workers.plan(N, H, 3, S, dtype)
    width = padded(H, 4 * lanes(dtype))
    panels, product = empty(3 * H * width, dtype), empty(N * width, dtype)
    arrays = (tape.gates, tape.hn, tape.h, tape.h0, w_hh, tape.batch_sizes, dh, dh0, panels, product, da, dz, all_dh)
    counter = np.zeros(1, np.int64)
    workers.run(_backward, P, by_units, *arrays, counter, worth_waking=wake)
    dw_hh = weight_gradient(multiply, da, tape.h, tape.h0, tape.batch_sizes)  # (3H, H)  (2.8)
    db_hn = da[:, 2 * H :].sum(axis=0)  # (H,)  (2.9)
    return GRUGrads(dz, dw_hh, db_hn, dh0)  # (2.10)


def gates(z: Array, a: Array, b_hn: Array) -> Array:
    """r, u, n in place of z (S, 3H), from a = h_{t-1} w_hh^T (S, 3H); returns hn (S, H)"""
    hn = np.empty((len(z), len(b_hn)), z.dtype)
    workers.run(_gates_of_rows, workers.threads(50 * z.size), z, a, b_hn, hn, worth_waking=z.size > workers.WORTH / 100)
    return hn


def step(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None) -> Array:
    """h_t (N, H) from x (N, D), h (N, H), w_ih (3H, D), w_hh (3H, H), b_ih, b_hh (3H,)"""
    N, H = h.shape
    z, h_t = np.zeros((2, N, 3 * H), x.dtype), np.empty_like(h)
    none = x[0, :0]
    operations = 2 * (N + 1) * (w_ih.size + w_hh.size)  # reading the weights takes as long as one row
    b_ih, b_hh = none if b_ih is None else b_ih, none if b_hh is None else b_hh
    P, worth_waking = workers.threads(operations), operations > workers.WORTH_WAKING
    workers.run(_step, P, x, h, w_ih, w_hh, b_ih, b_hh, z[0], z[1], h_t, worth_waking=worth_waking)
    return h_t


@compiled(error_model="numpy")
def _forward(
    p: int,
    P: int,
    by_units: bool,
    z: Array,
    w_hh: Array,
    b_hn: Array,
    h0: Array,
    batch_sizes: Array,
    gates: Array,
    hn: Array,
    h: Array,
    h_n: Array,
    panels: Array,
    a: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps. a (P, ...): a thread's own h_{t-1} w_hh^T, for the rows of one panel or the panels of one row."""
    H, L = h0.shape[1], lanes_of(h0)
    count = panels.size // (3 * H * L)
    gates_into(w_hh.reshape(-1), 3, H, H, panels, count * p // P, count * (p + 1) // P)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    z, b_hn, gates, hn, h, h_n, a = pointer(z), pointer(b_hn), pointer(gates), pointer(hn), pointer(h), pointer(h_n), pointer(a[p])
    h_before, at, start = pointer(h0), 0, 0
    for t in range(len(batch_sizes)):
        rows = (batch_sizes[t] - q + stride - 1) // stride  # of this thread
        going_on = batch_sizes[t + 1] if t + 1 < len(batch_sizes) else 0
        panel = first
        while panel < last and rows > 0:
            end, a_panel = (panel + 1, 0) if rows > 1 else (last, 3 * L)
            multiply_3(h_before, (at + q) * H, stride * H, rows, H, panels, count, a, a_panel, 3 * L, L, panel, end)  # (1.1)
            for k in range(rows):
                sequence = q + k * stride
                row, before = start + sequence, at + sequence
                for j in range(panel * L, end * L, L):
                    of_a = j * 3 if rows == 1 else k * 3 * L
                    if j + L <= H:
                        _cell(H, L, row, before, j, None, z, a, of_a, b_hn, h_before, gates, hn, h)
                    else:
                        _cell(H, L, row, before, j, H - j, z, a, of_a, b_hn, h_before, gates, hn, h)
                    if sequence >= going_on:
                        store(h_n, sequence * H + j, load(h, row * H + j, H - j), H - j)
            panel = end
        if by_units:
            meet(counter, (t + 2) * P)
        h_before, at = h, start
        start += batch_sizes[t]


@njit(error_model="numpy")
def _gates(z_r: float, z_u: float, z_n: float, a_r: float, a_u: float, a_n: float, b_hn: float) -> tuple[float, float, float, float]:
    r = sigmoid(z_r + a_r)  # (1.2)
    u = sigmoid(z_u + a_u)  # (1.3)
    hn = a_n + b_hn  # (1.4)
    n = tanh(z_n + r * hn)  # (1.5)
    return r, u, hn, n


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
    b_hn: Array,
    h_before: Array,
    gates: Array,
    hn: Array,
    h: Array,
) -> None:
    """The units j .. j + L - 1 of one row."""
    at = row * 3 * H + j
    z_r, z_u, z_n = load(z, at, left), load(z, at + H, left), load(z, at + 2 * H, left)
    a_r, a_u, a_n = load(a, of_a, None), load(a, of_a + L, None), load(a, of_a + 2 * L, None)
    r, u, hn_t, n = _gates(z_r, z_u, z_n, a_r, a_u, a_n, load(b_hn, j, left))
    h_t = n + u * (load(h_before, before * H + j, left) - n)  # (1.6)
    store(gates, at, r, left)
    store(gates, at + H, u, left)
    store(gates, at + 2 * H, n, left)
    store(hn, row * H + j, hn_t, left)
    store(h, row * H + j, h_t, left)


@compiled(error_model="numpy")
def _backward(
    p: int,
    P: int,
    by_units: bool,
    gates: Array,
    hn: Array,
    h: Array,
    h0: Array,
    w_hh: Array,
    batch_sizes: Array,
    dh: Array,
    dh_t: Array,
    panels: Array,
    product: Array,
    da: Array,
    dz: Array,
    all_dh: Array,
    counter: Array,
) -> None:
    """What thread p does of all steps, backwards. dh_t (N, H) ends as dh0; product (N, H padded): da w_hh, what (2.7) adds to it;
    all_dh (S, H) gets every row of dh_t, or is empty."""
    (N, H), L = dh_t.shape, lanes_of(dh_t)
    width = product.size // N
    count = width // (4 * L)
    columns_into(w_hh.reshape(-1), 4, 3 * H, H, panels, count * p // P, count * (p + 1) // P)
    meet(counter, P)
    q, stride, first, last = part(p, P, by_units, count)
    unit, until = first * 4 * L, min(last * 4 * L, H)
    for sequence in range(q, N, stride):
        product[sequence * width + unit : sequence * width + until] = 0
    start, has_dh, has_taps, one = len(h), dh.size > 0, all_dh.size > 0, h.dtype.type(1)
    of_gates, of_hn, of_h, of_h0, of_dh, of_dh_t = pointer(gates), pointer(hn), pointer(h), pointer(h0), pointer(dh), pointer(dh_t)
    of_product, own, of_da, of_dz, of_all_dh = pointer(product), pointer(product[q * width :]), pointer(da), pointer(dz), pointer(all_dh)
    for t in range(len(batch_sizes) - 1, -1, -1):
        start -= batch_sizes[t]
        at = start - batch_sizes[t - 1] if t > 0 else 0
        h_before = of_h if t > 0 else of_h0
        rows = (batch_sizes[t] - q + stride - 1) // stride  # of this thread
        for sequence in range(q, batch_sizes[t], stride):
            row, before = start + sequence, at + sequence
            for j in range(unit, until, L):
                state = sequence * H + j
                dh_row = load(of_dh_t, state, H - j) + load(of_product, sequence * width + j, None)  # (2.7) of the step after
                if has_dh:
                    dh_row = dh_row + load(of_dh, row * H + j, H - j)  # (2.2)
                if has_taps:
                    store(of_all_dh, row * H + j, dh_row, H - j)
                if j + L <= H:
                    _cell_backward(H, row, before, j, None, one, of_gates, of_hn, h_before, dh_row, of_dh_t, state, of_da, of_dz)
                else:
                    _cell_backward(H, row, before, j, H - j, one, of_gates, of_hn, h_before, dh_row, of_dh_t, state, of_da, of_dz)
        if by_units:
            meet(counter, (len(batch_sizes) - t + 1) * P)
        if rows > 0 and last > first:
            of_row = (start + q) * 3 * H
            multiply_4(of_da, of_row, stride * 3 * H, rows, 3 * H, panels, count, own, 4 * L, stride * width, L, first, last)
    for sequence in range(q, N, stride):
        for j in range(unit, until):
            dh_t[sequence, j] += product[sequence * width + j]  # (2.7)


@njit(error_model="numpy")
def _cell_backward(
    H: int,
    row: int,
    before: int,
    j: int,
    left: int | None,
    one: float,
    gates: Array,
    hn: Array,
    h_before: Array,
    dh_row: Array,
    dh_t: Array,
    state: int,
    da: Array,
    dz: Array,
) -> None:
    """The units j .. j + L - 1 of one row; dz may be the gates."""
    at = row * 3 * H + j
    r, u, n = load(gates, at, left), load(gates, at + H, left), load(gates, at + 2 * H, left)
    dz_n = dh_row * (one - u) * (one - n * n)  # (2.3)
    dz_u = dh_row * (load(h_before, before * H + j, left) - n) * u * (one - u)  # (2.4)
    dz_r = dz_n * load(hn, row * H + j, left) * r * (one - r)  # (2.5)
    store(da, at, dz_r, left)  # (2.6)
    store(da, at + H, dz_u, left)
    store(da, at + 2 * H, dz_n * r, left)
    store(dh_t, state, dh_row * u, left)  # (2.7), but for the product
    store(dz, at, dz_r, left)
    store(dz, at + H, dz_u, left)
    store(dz, at + 2 * H, dz_n, left)


@compiled(error_model="numpy")
def _gates_of_rows(p: int, P: int, z: Array, a: Array, b_hn: Array, hn: Array) -> None:
    """In place of z, for the p-th part of the rows."""
    (S, H), L = hn.shape, lanes_of(z)
    z, a, b_hn, hn = pointer(z), pointer(a), pointer(b_hn), pointer(hn)
    for row in range(S * p // P, S * (p + 1) // P):
        for j in range(0, H, L):
            if j + L <= H:
                _gates_in_place(H, row, j, None, z, a, b_hn, hn)
            else:
                _gates_in_place(H, row, j, H - j, z, a, b_hn, hn)


@njit(error_model="numpy")
def _gates_in_place(H: int, row: int, j: int, left: int | None, z: Array, a: Array, b_hn: Array, hn: Array) -> None:
    at = row * 3 * H + j
    z_r, z_u, z_n = load(z, at, left), load(z, at + H, left), load(z, at + 2 * H, left)
    a_r, a_u, a_n = load(a, at, left), load(a, at + H, left), load(a, at + 2 * H, left)
    r, u, hn_t, n = _gates(z_r, z_u, z_n, a_r, a_u, a_n, load(b_hn, j, left))
    store(z, at, r, left)
    store(z, at + H, u, left)
    store(z, at + 2 * H, n, left)
    store(hn, row * H + j, hn_t, left)


@compiled(error_model="numpy")
def _step(p: int, P: int, x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, z: Array, a: Array, h_t: Array) -> None:
    """One step of the p-th part of the units. z, a (N, 3H), zeros at first."""
    (N, H), L = h.shape, lanes_of(h)
    count = (H + L - 1) // L  # vectors of units
    unit, until = count * p // P * L, min(count * (p + 1) // P * L, H)
    for gate in range(3):
        rows_into(w_ih, gate * H + unit, gate * H + until, x, b_ih, z)
        rows_into(w_hh, gate * H + unit, gate * H + until, h, b_hh, a)  # (1.1)
    z, a, h, h_t = pointer(z), pointer(a), pointer(h), pointer(h_t)
    for n in range(N):
        for j in range(unit, until, L):
            if j + L <= H:
                _step_of_units(H, n, j, None, z, a, h, h_t)
            else:
                _step_of_units(H, n, j, H - j, z, a, h, h_t)


@njit(error_model="numpy")
def _step_of_units(H: int, n: int, j: int, left: int | None, z: Array, a: Array, h_before: Array, h: Array) -> None:
    at = n * 3 * H + j
    z_r, z_u, z_n = load(z, at, left), load(z, at + H, left), load(z, at + 2 * H, left)
    a_r, a_u, a_n = load(a, at, left), load(a, at + H, left), load(a, at + 2 * H, left)
    _, u, _, n_t = _gates(z_r, z_u, z_n, a_r, a_u, a_n, zeros(h))  # the bias is in a
    store(h, n * H + j, n_t + u * (load(h_before, n * H + j, left) - n_t), left)  # (1.6)
