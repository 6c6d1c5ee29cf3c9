"""The plain recurrence in NumPy, line by line: the reference and the fallback. Equation numbers are those of README.md in this folder.

Any floating dtype runs; the forward pass also takes complex numbers, so that a complex step can check the backward pass.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, RNNGrads, RNNTape, check_nonlinearity, check_packed
from minirnn.kernels.packed import previous, starts

in_place = True
taps = True


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN, and of complex numbers the real part decides."""
    return np.where(x.real <= 0, 0, x)


def forward(z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh", out: Array | None = None) -> RNNTape:
    """z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,), nonlinearity "tanh" or "relu"; out (S, H) for h, may be z"""
    check_packed("RNN", 1, z, w_hh, batch_sizes, h0=h0)
    check_nonlinearity(nonlinearity)
    phi = np.tanh if nonlinearity == "tanh" else relu
    h = np.empty_like(z) if out is None else out  # (S, H)
    h_n = h0.copy()  # (N, H) h_{t-1}; the rows of a sequence that has ended stay as they are

    for start, n in zip(starts(batch_sizes), batch_sizes, strict=False):
        rows = slice(start, start + n)
        a = h_n[:n] @ w_hh.T  # (n, H)                                    (1.1)
        h_n[:n] = phi(z[rows] + a)  # (n, H)                              (1.2)
        h[rows] = h_n[:n]

    return RNNTape(h, h_n, h0, batch_sizes, nonlinearity)


def backward(
    tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None, out: Array | None = None, taps: tuple[Array] | None = None
) -> RNNGrads:
    """dh (S, H), dh_n (N, H), None means zero; out (S, H) for dz; taps: one (S, H) for the whole dL/dh_t of every row"""
    batch_sizes = tape.batch_sizes
    dz = np.empty_like(tape.h) if out is None else out  # (S, H)
    # (N, H) dL/dh_t on its way back; a sequence's rows wait untouched until its own last step                           (2.1)
    dh_t = np.zeros_like(tape.h0) if dh_n is None else dh_n.copy()

    for start, n in reversed(list(zip(starts(batch_sizes), batch_sizes, strict=False))):
        rows = slice(start, start + n)
        if dh is not None:
            dh_t[:n] += dh[rows]  # (n, H)                                (2.2)
        if taps is not None:
            taps[0][rows] = dh_t[:n]
        if tape.nonlinearity == "tanh":
            dz[rows] = dh_t[:n] * (1 - tape.h[rows] ** 2)  # (n, H)       (2.3)
        else:
            dz[rows] = np.where(tape.h[rows] <= 0, 0, dh_t[:n])  #        (2.3)
        dh_t[:n] = dz[rows] @ w_hh  # (n, H) dL/dh_{t-1}                  (2.4)

    dw_hh = dz.T @ previous(tape.h, tape.h0, batch_sizes)  # (H, H)       (2.5)
    return RNNGrads(dz, dw_hh, dh_t)  #                                   (2.6)


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
    a = x @ w_ih.T + h @ w_hh.T  # (N, H)
    if b_ih is not None and b_hh is not None:
        a += b_ih + b_hh
    return np.tanh(a) if nonlinearity == "tanh" else relu(a)
