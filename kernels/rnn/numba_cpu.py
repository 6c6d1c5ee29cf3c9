"""The plain recurrence for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

As in the LSTM's, P threads deal out the sequences: group p takes p, p + P, p + 2P, ... through all time steps in one compiled function. A
step is a product of the group's rows with `w_hh`, packed once per call, into rows that are padded to whole panels, and one pass over these
while they are in cache. Nothing is allocated inside the loop over time.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array, RNNGrads, RNNTape, check_nonlinearity, check_packed
from minirnn.kernels.packed import last_rows, previous, starts
from minirnn.kernels.pointwise import tanh
from minirnn.kernels.product import VECTOR, empty, lanes, multiply_4, pack_columns, padded
from minirnn.kernels.rnn.numpy_ import step

__all__ = ["backward", "forward", "in_place", "step"]

in_place = True


def forward(z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh", out: Array | None = None) -> RNNTape:
    """z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,), nonlinearity "tanh" or "relu"; all float32 or all float64"""
    check_packed("RNN", 1, z, w_hh, batch_sizes, h0=h0)
    check_nonlinearity(nonlinearity)
    N, H = h0.shape
    h = np.empty_like(z) if out is None else out  # (S, H)
    panels = pack_columns(np.ascontiguousarray(w_hh.T))
    first = starts(batch_sizes)  # (T+1,)
    P = workers.groups(N, 2 * len(z) * H * H)

    def group(p: int) -> None:
        _forward(p, P, z, panels, h0, first, nonlinearity == "tanh", h, _rows(p, P, h0))

    workers.share(group, P)
    return RNNTape(h, h[last_rows(batch_sizes)], h0, batch_sizes, nonlinearity)


def backward(tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None) -> RNNGrads:
    """dh (S, H), dh_n (N, H); None means zero"""
    (N, H), dtype = tape.h0.shape, w_hh.dtype
    dz = np.empty_like(tape.h) if out is None else out  # (S, H)
    dh0 = np.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back              (2.1)
    dh = np.empty((0, H), dtype) if dh is None else np.ascontiguousarray(dh)
    panels = pack_columns(w_hh)
    first = starts(tape.batch_sizes)
    P = workers.groups(N, 2 * len(dz) * H * H)

    def group(p: int) -> None:
        _backward(p, P, tape.h, panels, first, tape.nonlinearity == "tanh", dh, dh0, dz, _rows(p, P, dh0))

    workers.share(group, P)
    dw_hh = dz.T @ previous(tape.h, tape.h0, tape.batch_sizes)  # (H, H)  (2.5)
    return RNNGrads(dz, dw_hh, dh0)  # (2.6)


def _rows(p: int, P: int, state0: Array) -> Array:
    """Room for one row of each sequence of group p, as wide as whole panels."""
    rows, H = len(range(p, len(state0), P)), state0.shape[1]
    return empty(rows * padded(H, 4 * lanes(state0.dtype)), state0.dtype).reshape(rows, -1)


@compiled(error_model="numpy", fastmath={"contract"})
def _forward(p: int, P: int, z: Array, panels: Array, h0: Array, first: Array, is_tanh: bool, h: Array, a: Array) -> None:
    """The sequences p, p + P, ... through all steps. z, h (S, H); first (T+1,); a: h_{t-1} w_hh^T, padded."""
    H, width = h0.shape[1], a.shape[1]
    lanes = VECTOR // h.itemsize
    zero = h.dtype.type(0)
    h_before, at = h0, 0
    for t in range(len(first) - 1):
        n = (first[t + 1] - first[t] - p + P - 1) // P  # rows of this group
        if n <= 0:
            break
        multiply_4(
            h_before.reshape(-1), (at + p) * H, P * H, n, H, panels, width // (4 * lanes), a.reshape(-1), 4 * lanes, width, lanes
        )  # (1.1)
        for q in range(n):
            row = first[t] + p + q * P
            if is_tanh:
                for j in range(H):
                    h[row, j] = tanh(z[row, j] + a[q, j])  # (1.2)
            else:
                for j in range(H):
                    x = z[row, j] + a[q, j]
                    h[row, j] = zero if x <= zero else x  # (1.2)
        h_before, at = h, first[t]


@compiled(error_model="numpy", fastmath={"contract"})
def _backward(p: int, P: int, h: Array, panels: Array, first: Array, is_tanh: bool, dh: Array, dh0: Array, dz: Array, dh_t: Array) -> None:
    """The sequences p, p + P, ... back through all steps. h, dz (S, H); dh0 (N, H), at first dh_n; dh_t: its rows of this group, padded."""
    H, width = dh0.shape[1], dh_t.shape[1]
    lanes = VECTOR // h.itemsize
    zero, one = h.dtype.type(0), h.dtype.type(1)
    for q in range(len(dh_t)):
        for j in range(H):
            dh_t[q, j] = dh0[p + q * P, j]
    for t in range(len(first) - 2, -1, -1):
        n = (first[t + 1] - first[t] - p + P - 1) // P
        if n <= 0:
            continue
        for q in range(n):
            row = first[t] + p + q * P
            if dh.size:
                for j in range(H):
                    dh_t[q, j] += dh[row, j]  # (2.2)
            if is_tanh:
                for j in range(H):
                    dz[row, j] = dh_t[q, j] * (one - h[row, j] * h[row, j])  # (2.3)
            else:
                for j in range(H):
                    dz[row, j] = zero if h[row, j] <= zero else dh_t[q, j]  # (2.3)
        multiply_4(
            dz.reshape(-1), (first[t] + p) * H, P * H, n, H, panels, width // (4 * lanes), dh_t.reshape(-1), 4 * lanes, width, lanes
        )  # (2.4)
    for q in range(len(dh_t)):
        for j in range(H):
            dh0[p + q * P, j] = dh_t[q, j]
