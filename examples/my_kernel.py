"""An LSTM kernel of one's own, in NumPy: what `minirnn bench lstm --kernel examples/my_kernel.py` checks and times.

`minirnn.kernels.contract` says what `forward` and `backward` take and give: packed rows, of which step t owns `batch_sizes[t]`, the longest
sequence first. This one works on all four gates at once where the kernel `numpy` takes them one by one.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any


class Tape(NamedTuple):
    """What the layer reads, and whatever the backward pass needs."""

    h: Array  # (S, H)
    c: Array  # (S, H)
    h_n: Array  # (N, H)
    c_n: Array  # (N, H)
    gates: Array  # (S, 4H) i, f, g, o
    before: Array  # (2, S, H) h_{t-1}, c_{t-1}
    batch_sizes: Array  # (T,)


class Grads(NamedTuple):
    dz: Array  # (S, 4H)
    dw_hh: Array  # (4H, H)
    dh0: Array  # (N, H)
    dc0: Array  # (N, H)


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array) -> Tape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,)"""
    S, H = len(z), w_hh.shape[1]
    h, c, gates, before = np.empty((S, H), z.dtype), np.empty((S, H), z.dtype), np.empty_like(z), np.empty((2, S, H), z.dtype)
    h_n, c_n = h0.copy(), c0.copy()
    scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], z.dtype), H)  # sigmoid(a) = (1 + tanh(a / 2)) / 2
    start = 0
    for n in batch_sizes:
        rows = slice(start, start := start + n)
        before[:, rows] = h_n[:n], c_n[:n]
        gates[rows] = scale * np.tanh(scale * (z[rows] + h_n[:n] @ w_hh.T)) + (1 - scale)
        i, f, g, o = np.split(gates[rows], 4, axis=1)  # (n, H) each
        c[rows] = c_n[:n] = f * c_n[:n] + i * g
        h[rows] = h_n[:n] = o * np.tanh(c_n[:n])
    return Tape(h, c, h_n, c_n, gates, before, batch_sizes)


def backward(tape: Tape, w_hh: Array, dh: Array | None, dc: Array | None, dh_n: Array | None, dc_n: Array | None) -> Grads:
    """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H); None is zero"""
    zero = np.zeros_like(tape.h_n)
    dh_t, dc_t = zero.copy() if dh_n is None else dh_n.copy(), zero.copy() if dc_n is None else dc_n.copy()
    dz, end = np.empty_like(tape.gates), len(tape.h)
    for n in tape.batch_sizes[::-1]:
        rows = slice(end - n, end)
        end -= n
        i, f, g, o = np.split(tape.gates[rows], 4, axis=1)
        tanh_c = np.tanh(tape.c[rows])
        dh_t[:n] += 0 if dh is None else dh[rows]
        dc_t[:n] += dh_t[:n] * o * (1 - tanh_c**2) + (0 if dc is None else dc[rows])
        da_i, da_f = dc_t[:n] * g * i * (1 - i), dc_t[:n] * tape.before[1, rows] * f * (1 - f)
        dz[rows] = np.hstack([da_i, da_f, dc_t[:n] * i * (1 - g**2), dh_t[:n] * tanh_c * o * (1 - o)])
        dc_t[:n] *= f
        dh_t[:n] = dz[rows] @ w_hh
    return Grads(dz, dz.T @ tape.before[0], dh_t, dc_t)
