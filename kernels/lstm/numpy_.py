"""The LSTM recurrence in NumPy, line by line: the reference and the fallback. Equation numbers are those of README.md in this folder.

Any floating dtype runs; the forward pass also takes complex numbers, so that a complex step can check the backward pass.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, LSTMGrads, LSTMTape, check_packed
from minirnn.kernels.packed import previous, starts

in_place = True
taps = True


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written so that no x overflows."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array, out: Array | None = None) -> LSTMTape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,); out (S, 4H) for the gates, may be z"""
    check_packed("LSTM", 4, z, w_hh, batch_sizes, h0=h0, c0=c0)
    S, H = len(z), w_hh.shape[1]
    h, c = np.empty((S, H), z.dtype), np.empty((S, H), z.dtype)
    gates = np.empty((S, 4 * H), z.dtype) if out is None else out
    h_n, c_n = h0.copy(), c0.copy()  # (N, H) h_{t-1}, c_{t-1}; the rows of a sequence that has ended stay as they are

    for start, n in zip(starts(batch_sizes), batch_sizes, strict=False):
        rows = slice(start, start + n)
        a = z[rows] + h_n[:n] @ w_hh.T  # (n, 4H)                                         (1.1)
        i = sigmoid(a[:, 0 * H : 1 * H])  # (n, H)                                        (1.2)
        f = sigmoid(a[:, 1 * H : 2 * H])  # (n, H)                                        (1.3)
        g = np.tanh(a[:, 2 * H : 3 * H])  # (n, H)                                        (1.4)
        o = sigmoid(a[:, 3 * H : 4 * H])  # (n, H)                                        (1.5)
        c_n[:n] = f * c_n[:n] + i * g  # (n, H)                                           (1.6)
        h_n[:n] = o * np.tanh(c_n[:n])  # (n, H)                                          (1.7)
        gates[rows] = np.concatenate((i, f, g, o), axis=1)  # (n, 4H)
        h[rows], c[rows] = h_n[:n], c_n[:n]

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
    H = w_hh.shape[1]
    batch_sizes = tape.batch_sizes
    c_before = previous(tape.c, tape.c0, batch_sizes)  # (S, H) c_{t-1}
    dz = np.empty_like(tape.gates) if out is None else out  # (S, 4H)
    # (N, H) dL/dh_t and dL/dc_t on their way back; a sequence's rows wait until its own last step (2.1)
    dh_t = np.zeros_like(tape.h0) if dh_n is None else dh_n.copy()
    dc_t = np.zeros_like(tape.c0) if dc_n is None else dc_n.copy()

    for start, n in reversed(list(zip(starts(batch_sizes), batch_sizes, strict=False))):
        rows = slice(start, start + n)
        i, f, g, o = (tape.gates[rows, k * H : (k + 1) * H] for k in range(4))  # (n, H) each
        if dh is not None:
            dh_t[:n] += dh[rows]  # (n, H)                                                (2.2)
        if dc is not None:
            dc_t[:n] += dc[rows]  # (n, H)                                                (2.3)
        tanh_c = np.tanh(tape.c[rows])  # (n, H)
        da_o = dh_t[:n] * tanh_c * o * (1 - o)  # (n, H)                                  (2.4)
        dc_t[:n] += dh_t[:n] * o * (1 - tanh_c**2)  # (n, H)                              (2.5)
        if taps is not None:
            taps[0][rows], taps[1][rows] = dh_t[:n], dc_t[:n]
        da_i = dc_t[:n] * g * i * (1 - i)  # (n, H)                                       (2.6)
        da_f = dc_t[:n] * c_before[rows] * f * (1 - f)  # (n, H)                          (2.7)
        da_g = dc_t[:n] * i * (1 - g**2)  # (n, H)                                        (2.8)
        dc_t[:n] *= f  # (n, H) dL/dc_{t-1}                                               (2.9)
        dz[rows] = np.concatenate((da_i, da_f, da_g, da_o), axis=1)  # (n, 4H), where i, f, g, o may have been
        dh_t[:n] = dz[rows] @ w_hh  # (n, H) dL/dh_{t-1}                                  (2.10)

    dw_hh = dz.T @ previous(tape.h, tape.h0, batch_sizes)  # (4H, H)                      (2.11)
    return LSTMGrads(dz, dw_hh, dh_t, dc_t)  #                                            (2.12)


def gates(a: Array) -> None:
    """i, f, g, o in place of a = z + h_{t-1} w_hh^T (S, 4H)."""
    H = a.shape[1] // 4
    a[:, : 2 * H] = sigmoid(a[:, : 2 * H])  # (1.2) (1.3)
    a[:, 2 * H : 3 * H] = np.tanh(a[:, 2 * H : 3 * H])  # (1.4)
    a[:, 3 * H :] = sigmoid(a[:, 3 * H :])  # (1.5)


def step(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> tuple[Array, Array]:
    """h_t, c_t (N, H) from x (N, D), h, c (N, H), w_ih (4H, D), w_hh (4H, H), b_ih, b_hh (4H,)"""
    a = x @ w_ih.T + h @ w_hh.T  # (N, 4H)
    if b_ih is not None and b_hh is not None:
        a += b_ih + b_hh
    gates(a)
    i, f, g, o = np.split(a, 4, axis=1)  # (N, H) each
    c = f * c + i * g  # (1.6)
    return o * np.tanh(c), c  # (1.7)
