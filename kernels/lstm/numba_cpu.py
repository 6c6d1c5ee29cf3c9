"""The LSTM recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

Sequences do not depend on each other, so P threads deal them out like cards: group p takes the sequences p, p + P, p + 2P, ..., which
shares ragged batches evenly, through all time steps inside one compiled function. No thread waits for another, and a small problem is one
group. A step is a product of the group's rows with `w_hh`, packed once per call, and a pass over each row's gates while they are in cache.

Per row and step the forward pass reads z (4H numbers), h_{t-1}, c_{t-1} and writes the gates (4H), c, h; w_hh (4 H^2) is read from cache
once per six rows. Its product takes 8 H^2 operations. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, LSTMGrads, LSTMTape, check_packed
from minirnn.kernels.lstm.numpy_ import gates, step
from minirnn.kernels.packed import last_rows, previous, starts
from minirnn.kernels.pointwise import sigmoid, tanh
from minirnn.kernels.product import VECTOR, empty, lanes, multiply_4, pack_columns, pack_gates, padded

__all__ = ["backward", "forward", "gates", "in_place", "step"]

in_place = True


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array, out: Array | None = None) -> LSTMTape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,); all float32 or all float64"""
    check_packed("LSTM", 4, z, w_hh, batch_sizes, h0=h0, c0=c0)
    (N, H), S = h0.shape, len(z)
    h, c = np.empty((S, H), z.dtype), np.empty((S, H), z.dtype)
    gates = np.empty((S, 4 * H), z.dtype) if out is None else out
    panels = pack_gates(w_hh, 4)
    first = starts(batch_sizes)  # (T+1,)
    P = workers.groups(N, 8 * S * H * H)

    def group(p: int) -> None:
        a = empty(len(range(p, N, P)) * 4 * padded(H, lanes(z.dtype)), z.dtype)
        _forward(p, P, z.reshape(S, 4, H), panels, h0, c0, first, gates.reshape(S, 4, H), c, h, a)

    workers.share(group, P)
    last = last_rows(batch_sizes)  # (N,)
    return LSTMTape(h, c, gates, h[last], c[last], h0, c0, batch_sizes)


def backward(
    tape: LSTMTape,
    w_hh: Array,
    dh: Array | None,
    dc: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    out: Array | None = None,
) -> LSTMGrads:
    """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H); None means zero"""
    (N, H), S, dtype = tape.h0.shape, len(tape.h), w_hh.dtype
    dz = np.empty((S, 4 * H), dtype)
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back (2.1)
    dc0 = np.zeros((N, H), dtype) if dc_n is None else dc_n.copy()  # (N, H) dL/dc_t
    none = np.empty((0, H), dtype)
    dh = none if dh is None else np.ascontiguousarray(dh)
    dc = none if dc is None else np.ascontiguousarray(dc)
    panels = pack_columns(w_hh)
    first = starts(tape.batch_sizes)
    P = workers.groups(N, 8 * S * H * H)

    def group(p: int) -> None:
        dh_t = empty(len(range(p, N, P)) * padded(H, 4 * lanes(dtype)), dtype).reshape(len(range(p, N, P)), -1)
        _backward(p, P, tape.gates.reshape(S, 4, H), tape.c, tape.c0, panels, first, dh, dc, dh0, dc0, dh_t, dz.reshape(S, 4, H))

    workers.share(group, P)
    dw_hh = dz.T @ previous(tape.h, tape.h0, tape.batch_sizes)  # (4H, H)  (2.11)
    if out is not None:
        out[...] = dz
        dz = out
    return LSTMGrads(dz, dw_hh, dh0, dc0)  # (2.12)


@compiled(error_model="numpy", fastmath={"contract"})
def _forward(
    p: int, P: int, z: Array, panels: Array, h0: Array, c0: Array, first: Array, gates: Array, c: Array, h: Array, a: Array
) -> None:
    """The sequences p, p + P, ... through all steps. z, gates (S, 4, H); first (T+1,); h, c (S, H); a: h_{t-1} w_hh^T, padded."""
    H = h0.shape[1]
    width = panels.size // (4 * H)  # H, rounded up to whole vectors
    lanes = VECTOR // h.itemsize
    a3 = a.reshape(-1, 4, width)
    h_before, c_before, at = h0, c0, 0
    for t in range(len(first) - 1):
        n = (first[t + 1] - first[t] - p + P - 1) // P  # rows of this group
        if n <= 0:
            break
        # (1.1)
        multiply_4(h_before.reshape(-1), (at + p) * H, P * H, n, H, panels, width // lanes, a, lanes, 4 * width, width)
        for r in range(n):
            row, before = first[t] + p + r * P, at + p + r * P
            for j in range(H):  # a loop for each equation, or none would be vectorised
                gates[row, 0, j] = sigmoid(z[row, 0, j] + a3[r, 0, j])  # (1.2) i
            for j in range(H):
                gates[row, 1, j] = sigmoid(z[row, 1, j] + a3[r, 1, j])  # (1.3) f
            for j in range(H):
                gates[row, 2, j] = tanh(z[row, 2, j] + a3[r, 2, j])  # (1.4) g
            for j in range(H):
                gates[row, 3, j] = sigmoid(z[row, 3, j] + a3[r, 3, j])  # (1.5) o
            for j in range(H):
                c[row, j] = gates[row, 1, j] * c_before[before, j] + gates[row, 0, j] * gates[row, 2, j]  # (1.6)
            for j in range(H):
                h[row, j] = gates[row, 3, j] * tanh(c[row, j])  # (1.7)
        h_before, c_before, at = h, c, first[t]


@compiled(error_model="numpy", fastmath={"contract"})
def _backward(
    p: int,
    P: int,
    gates: Array,
    c: Array,
    c0: Array,
    panels: Array,
    first: Array,
    dh: Array,
    dc: Array,
    dh0: Array,
    dc_t: Array,
    dh_t: Array,
    dz: Array,
) -> None:
    """The sequences p, p + P, ... back through all steps. dc_t (N, H) ends as dc0; dh_t (N/P, H padded) is copied from and to dh0."""
    H = dh0.shape[1]
    lanes = VECTOR // c.itemsize
    one = c.dtype.type(1)
    for r in range(len(dh_t)):
        for j in range(H):
            dh_t[r, j] = dh0[p + r * P, j]
    for t in range(len(first) - 2, -1, -1):
        n = (first[t + 1] - first[t] - p + P - 1) // P
        if n <= 0:
            continue
        c_before = c if t > 0 else c0
        at = first[t - 1] if t > 0 else 0
        for r in range(n):
            q = p + r * P
            row, before = first[t] + q, at + q
            if dh.size:
                for j in range(H):
                    dh_t[r, j] += dh[row, j]  # (2.2)
            if dc.size:
                for j in range(H):
                    dc_t[q, j] += dc[row, j]  # (2.3)
            for j in range(H):
                dz[row, 0, j] = tanh(c[row, j])  # tanh(c_t), kept for a moment where da_i will be
            for j in range(H):
                tanh_c = dz[row, 0, j]
                o = gates[row, 3, j]
                dz[row, 3, j] = dh_t[r, j] * tanh_c * o * (one - o)  # (2.4)
            for j in range(H):
                tanh_c = dz[row, 0, j]
                dc_t[q, j] += dh_t[r, j] * gates[row, 3, j] * (one - tanh_c * tanh_c)  # (2.5)
            for j in range(H):
                i = gates[row, 0, j]
                dz[row, 0, j] = dc_t[q, j] * gates[row, 2, j] * i * (one - i)  # (2.6)
            for j in range(H):
                f = gates[row, 1, j]
                dz[row, 1, j] = dc_t[q, j] * c_before[before, j] * f * (one - f)  # (2.7)
            for j in range(H):
                g = gates[row, 2, j]
                dz[row, 2, j] = dc_t[q, j] * gates[row, 0, j] * (one - g * g)  # (2.8)
            for j in range(H):
                dc_t[q, j] *= gates[row, 1, j]  # (2.9)
        multiply_4(
            dz.reshape(-1),
            (first[t] + p) * 4 * H,
            P * 4 * H,
            n,
            4 * H,
            panels,
            dh_t.shape[1] // (4 * lanes),
            dh_t.reshape(-1),
            4 * lanes,
            dh_t.shape[1],
            lanes,
        )  # (2.10)
    for r in range(len(dh_t)):
        for j in range(H):
            dh0[p + r * P, j] = dh_t[r, j]
