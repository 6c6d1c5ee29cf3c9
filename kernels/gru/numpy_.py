"""The GRU recurrence in NumPy, line by line: the reference and the fallback. Equation numbers are those of README.md in this folder.

Any floating dtype runs; the forward pass also takes complex numbers, so that a complex step can check the backward pass.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, GRUGrads, GRUTape, check_packed
from minirnn.kernels.packed import previous, starts

in_place = True
taps = True


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written so that no x overflows."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def forward(z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array, out: Array | None = None) -> GRUTape:
    """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,); out (S, 3H) for the gates, may be z"""
    check_packed("GRU", 3, z, w_hh, batch_sizes, b_hn=b_hn, h0=h0)
    S, H = len(z), w_hh.shape[1]
    h, hn = np.empty((S, H), z.dtype), np.empty((S, H), z.dtype)
    gates = np.empty((S, 3 * H), z.dtype) if out is None else out
    h_n = h0.copy()  # (N, H) h_{t-1}; the rows of a sequence that has ended stay as they are

    for start, rows_of_step in zip(starts(batch_sizes), batch_sizes, strict=False):
        rows, running = slice(start, start + rows_of_step), slice(rows_of_step)
        a = h_n[running] @ w_hh.T  # (n_t, 3H)                            (1.1)
        r = sigmoid(z[rows, 0 * H : 1 * H] + a[:, 0 * H : 1 * H])  #      (1.2)
        u = sigmoid(z[rows, 1 * H : 2 * H] + a[:, 1 * H : 2 * H])  #      (1.3)
        hn[rows] = a[:, 2 * H : 3 * H] + b_hn  #                          (1.4)
        n = np.tanh(z[rows, 2 * H : 3 * H] + r * hn[rows])  #             (1.5)
        h_n[running] = n + u * (h_n[running] - n)  #                      (1.6)
        gates[rows] = np.concatenate((r, u, n), axis=1)  # (n_t, 3H)
        h[rows] = h_n[running]

    return GRUTape(h, gates, hn, h_n, h0, batch_sizes)


def backward(
    tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None, taps: tuple[Array] | None = None
) -> GRUGrads:
    """dh (S, H), dh_n (N, H), None is zero; out (S, 3H) for dz, may be tape.gates; taps: one (S, H) for the whole dL/dh_t of every row"""
    H = w_hh.shape[1]
    batch_sizes = tape.batch_sizes
    h_before = previous(tape.h, tape.h0, batch_sizes)  # (S, H) h_{t-1}
    dz = np.empty_like(tape.gates) if out is None else out  # (S, 3H)
    da = np.empty_like(tape.gates)  # (S, 3H)
    # (N, H) dL/dh_t on its way back; a sequence's rows wait untouched until its own last step                           (2.1)
    dh_t = np.zeros_like(tape.h0) if dh_n is None else dh_n.copy()

    for start, rows_of_step in reversed(list(zip(starts(batch_sizes), batch_sizes, strict=False))):
        rows, running = slice(start, start + rows_of_step), slice(rows_of_step)
        r, u, n = (tape.gates[rows, k * H : (k + 1) * H] for k in range(3))  # (n_t, H) each
        if dh is not None:
            dh_t[running] += dh[rows]  # (n_t, H)                         (2.2)
        if taps is not None:
            taps[0][rows] = dh_t[running]
        dz_n = dh_t[running] * (1 - u) * (1 - n**2)  #                    (2.3)
        dz_u = dh_t[running] * (h_before[rows] - n) * u * (1 - u)  #      (2.4)
        dz_r = dz_n * tape.hn[rows] * r * (1 - r)  #                      (2.5)
        da[rows] = np.concatenate((dz_r, dz_u, dz_n * r), axis=1)  #      (2.6)
        dh_t[running] = dh_t[running] * u + da[rows] @ w_hh  #            (2.7)
        dz[rows] = np.concatenate((dz_r, dz_u, dz_n), axis=1)  # where r, u, n may have been

    dw_hh = da.T @ h_before  # (3H, H)                                    (2.8)
    db_hn = da[:, 2 * H :].sum(axis=0)  # (H,)                            (2.9)
    return GRUGrads(dz, dw_hh, db_hn, dh_t)  #                            (2.10)


def gates(z: Array, a: Array, b_hn: Array) -> Array:
    """r, u, n in place of z (S, 3H), from a = h_{t-1} w_hh^T (S, 3H); returns hn (S, H)."""
    H = len(b_hn)
    z[:, : 2 * H] = sigmoid(z[:, : 2 * H] + a[:, : 2 * H])  # (1.2) (1.3)
    hn: Array = a[:, 2 * H :] + b_hn  # (1.4)
    z[:, 2 * H :] = np.tanh(z[:, 2 * H :] + z[:, :H] * hn)  # (1.5)
    return hn


def step(x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None) -> Array:
    """h_t (N, H) from x (N, D), h (N, H), w_ih (3H, D), w_hh (3H, H), b_ih, b_hh (3H,)"""
    z, a = x @ w_ih.T, h @ w_hh.T  # (N, 3H) each
    if b_ih is not None and b_hh is not None:
        z, a = z + b_ih, a + b_hh
    gates(z, a, np.zeros(h.shape[1], h.dtype))
    _, u, n = np.split(z, 3, axis=1)  # (N, H) each
    return n + u * (h - n)  # (1.6)
