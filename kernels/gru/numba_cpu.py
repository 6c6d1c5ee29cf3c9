"""The GRU recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

As in the LSTM's, P threads deal out the sequences: group p takes p, p + P, p + 2P, ... through all time steps in one compiled function. A
step is a product of the group's rows with `w_hh`, packed once per call, and one pass per row over the gates while they are in cache.

Per row and step the forward pass reads z (3H numbers) and h_{t-1} and writes the gates (3H), hn and h; the backward pass reads these and
writes dz and da (3H each). The products are 6 H^2 operations each, the gates about 80 H. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, GRUGrads, GRUTape, check_packed
from minirnn.kernels.gru.numpy_ import gates, step
from minirnn.kernels.packed import last_rows, previous, starts
from minirnn.kernels.pointwise import sigmoid, tanh
from minirnn.kernels.product import VECTOR, empty, lanes, multiply_3, multiply_4, pack_columns, pack_gates, padded

__all__ = ["backward", "forward", "gates", "in_place", "step"]

in_place = True


def forward(z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array, out: Array | None = None) -> GRUTape:
    """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,); all float32 or all float64"""
    check_packed("GRU", 3, z, w_hh, batch_sizes, b_hn=b_hn, h0=h0)
    (N, H), S = h0.shape, len(z)
    h, hn = np.empty((S, H), z.dtype), np.empty((S, H), z.dtype)
    gates = np.empty((S, 3 * H), z.dtype) if out is None else out
    panels = pack_gates(w_hh, 3)
    first = starts(batch_sizes)  # (T+1,)
    P = workers.groups(N, 6 * S * H * H)

    def group(p: int) -> None:
        a = empty(len(range(p, N, P)) * 3 * padded(H, lanes(z.dtype)), z.dtype)
        _forward(p, P, z.reshape(S, 3, H), panels, b_hn, h0, first, gates.reshape(S, 3, H), hn, h, a)

    workers.share(group, P)
    return GRUTape(h, gates, hn, h[last_rows(batch_sizes)], h0, batch_sizes)


def backward(tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None) -> GRUGrads:
    """dh (S, H), dh_n (N, H); None means zero"""
    (N, H), S, dtype = tape.h0.shape, len(tape.h), w_hh.dtype
    dz = np.empty((S, 3 * H), dtype)
    da = np.empty((S, 3 * H), dtype)
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back              (2.1)
    dh = np.empty((0, H), dtype) if dh is None else np.ascontiguousarray(dh)
    panels = pack_columns(w_hh)
    first = starts(tape.batch_sizes)
    P = workers.groups(N, 6 * S * H * H)

    def group(p: int) -> None:
        rows = len(range(p, N, P))
        product = empty(rows * padded(H, 4 * lanes(dtype)), dtype).reshape(rows, -1)
        gates, da3, dz3 = (array.reshape(S, 3, H) for array in (tape.gates, da, dz))
        _backward(p, P, gates, tape.hn, tape.h, tape.h0, panels, first, dh, dh0, product, da3, dz3)

    workers.share(group, P)
    dw_hh = da.T @ previous(tape.h, tape.h0, tape.batch_sizes)  # (3H, H)  (2.8)
    db_hn = da[:, 2 * H :].sum(axis=0)  # (H,)  (2.9)
    if out is not None:
        out[...] = dz
        dz = out
    return GRUGrads(dz, dw_hh, db_hn, dh0)  # (2.10)


@compiled(error_model="numpy", fastmath={"contract"})
def _forward(
    p: int, P: int, z: Array, panels: Array, b_hn: Array, h0: Array, first: Array, gates: Array, hn: Array, h: Array, a: Array
) -> None:
    """The sequences p, p + P, ... through all steps. z, gates (S, 3, H); first (T+1,); hn, h (S, H); a: h_{t-1} w_hh^T, padded."""
    H = h0.shape[1]
    width = panels.size // (3 * H)  # H, rounded up to whole vectors
    lanes = VECTOR // h.itemsize
    a3 = a.reshape(-1, 3, width)
    h_before, at = h0, 0
    for t in range(len(first) - 1):
        rows = (first[t + 1] - first[t] - p + P - 1) // P  # of this group
        if rows <= 0:
            break
        multiply_3(h_before.reshape(-1), (at + p) * H, P * H, rows, H, panels, width // lanes, a, lanes, 3 * width, width)  # (1.1)
        for q in range(rows):
            row, before = first[t] + p + q * P, at + p + q * P
            for j in range(H):  # each line a loop of its own, so that it is vectorised
                gates[row, 0, j] = sigmoid(z[row, 0, j] + a3[q, 0, j])  # r  (1.2)
            for j in range(H):
                gates[row, 1, j] = sigmoid(z[row, 1, j] + a3[q, 1, j])  # u  (1.3)
            for j in range(H):
                hn[row, j] = a3[q, 2, j] + b_hn[j]  # (1.4)
            for j in range(H):
                gates[row, 2, j] = tanh(z[row, 2, j] + gates[row, 0, j] * hn[row, j])  # n  (1.5)
            for j in range(H):
                n = gates[row, 2, j]
                h[row, j] = n + gates[row, 1, j] * (h_before[before, j] - n)  # (1.6)
        h_before, at = h, first[t]


@compiled(error_model="numpy", fastmath={"contract"})
def _backward(
    p: int,
    P: int,
    gates: Array,
    hn: Array,
    h: Array,
    h0: Array,
    panels: Array,
    first: Array,
    dh: Array,
    dh_t: Array,
    product: Array,
    da: Array,
    dz: Array,
) -> None:
    """The sequences p, p + P, ... back through all steps. dh_t (N, H) ends as dh0; product: da w_hh, padded."""
    H = h0.shape[1]
    lanes = VECTOR // h.itemsize
    width = product.shape[1]
    one = h.dtype.type(1)
    for t in range(len(first) - 2, -1, -1):
        rows = (first[t + 1] - first[t] - p + P - 1) // P
        if rows <= 0:
            continue
        h_before = h if t > 0 else h0
        at = first[t - 1] if t > 0 else 0
        for q in range(rows):
            sequence = p + q * P
            row, before = first[t] + sequence, at + sequence
            if dh.size:
                for j in range(H):
                    dh_t[sequence, j] += dh[row, j]  # (2.2)
            for j in range(H):
                n = gates[row, 2, j]
                dz[row, 2, j] = dh_t[sequence, j] * (one - gates[row, 1, j]) * (one - n * n)  # (2.3)
            for j in range(H):
                u = gates[row, 1, j]
                dz[row, 1, j] = dh_t[sequence, j] * (h_before[before, j] - gates[row, 2, j]) * u * (one - u)  # (2.4)
            for j in range(H):
                r = gates[row, 0, j]
                dz[row, 0, j] = dz[row, 2, j] * hn[row, j] * r * (one - r)  # (2.5)
            for j in range(H):
                da[row, 0, j] = dz[row, 0, j]  # (2.6)
            for j in range(H):
                da[row, 1, j] = dz[row, 1, j]
            for j in range(H):
                da[row, 2, j] = dz[row, 2, j] * gates[row, 0, j]
        multiply_4(
            da.reshape(-1),
            (first[t] + p) * 3 * H,
            P * 3 * H,
            rows,
            3 * H,
            panels,
            width // (4 * lanes),
            product.reshape(-1),
            4 * lanes,
            width,
            lanes,
        )
        for q in range(rows):
            sequence = p + q * P
            row = first[t] + sequence
            for j in range(H):
                dh_t[sequence, j] = dh_t[sequence, j] * gates[row, 1, j] + product[q, j]  # (2.7)
