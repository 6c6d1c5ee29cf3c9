"""The plain recurrence on a GPU: the launches of rnn.cu. Equation numbers are those of README.md in this folder.

Two forms, and `minirnn.kernels.cuda.plan` chooses. In the step form each step is a library product and one kernel; in the persistent form
one kernel runs the whole sequence. Arrays are CuPy's, float32, float64, float16 or bfloat16; sums of 16-bit arrays are float32.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, RNNGrads, RNNTape, check_nonlinearity, check_packed
from minirnn.kernels.cuda import devices
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import NULL, contiguous, function
from minirnn.kernels.cuda.packed import device_starts, previous
from minirnn.kernels.cuda.plan import plan
from minirnn.kernels.packed import starts

UNIT = "rnn/rnn.cu"
taps = True


def forward(z: Array, w_hh: Array, h0: Array, batch_sizes: Array, nonlinearity: str = "tanh") -> RNNTape:
    """z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,), the last a NumPy array; nonlinearity "tanh" or "relu\""""
    check_packed("RNN", 1, z, w_hh, batch_sizes, h0=h0)
    check_nonlinearity(nonlinearity)
    xp, dtype = module_of(z), z.dtype
    (N, H), T, relu = h0.shape, len(batch_sizes), nonlinearity == "relu"
    h, h_n = xp.empty_like(z), xp.empty((N, H), dtype)  # (S, H), (N, H)

    p = plan("rnn", "forward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        run = function(xp, UNIT, "rnn_persistent_forward", dtype, cooperative=True, shared=p.shared)
        arguments = (z, w_hh, h0, device_starts(xp, batch_sizes), h, h_n, *map(np.int32, (T, H, relu, p.units)))
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "rnn_step_forward", dtype)
        a = xp.empty((N, H), dtype)
        first, sizes = starts(batch_sizes), [*batch_sizes.tolist(), 0]
        h_before = h0  # (n, H) h_{t-1}
        for start, n, going_on in zip(first.tolist(), sizes, sizes[1:], strict=False):
            xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, H)                          (1.1)
            step(p.blocks(n), p.block, (z, a, h, h_n, *map(np.int32, (start, n, going_on, H, relu))))
            h_before = h[start : start + n]

    return RNNTape(h, h_n, h0, batch_sizes, nonlinearity)


def backward(tape: RNNTape, w_hh: Array, dh: Array | None, dh_n: Array | None, taps: tuple[Array] | None = None) -> RNNGrads:
    """dh (S, H), dh_n (N, H), None means zero; taps: one (S, H) for the whole dL/dh_t of every row"""
    xp, dtype = module_of(w_hh), w_hh.dtype
    (N, H), T, relu = tape.h0.shape, len(tape.batch_sizes), tape.nonlinearity == "relu"
    dz = xp.empty_like(tape.h)  # (S, H)
    dh, dh_n = contiguous(xp, dh), contiguous(xp, dh_n)
    first = device_starts(xp, tape.batch_sizes)  # (T+1,)

    p = plan("rnn", "backward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        dh0 = xp.empty((N, H), dtype)
        run = function(xp, UNIT, "rnn_persistent_backward", dtype, cooperative=True, shared=p.shared)
        gradients = tuple(NULL if gradient is None else gradient for gradient in (dh, dh_n))
        arguments = (tape.h, w_hh, *gradients, first, dz, dh0, *(taps or (NULL,)), *map(np.int32, (T, H, relu, p.units)))
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "rnn_step_backward_tapped" if taps else "rnn_step_backward", dtype)
        dh0 = xp.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back (2.1)
        for start, n in reversed(list(zip(starts(tape.batch_sizes).tolist(), tape.batch_sizes.tolist(), strict=False))):
            step(p.blocks(n), p.block, (tape.h, NULL if dh is None else dh, dh0, dz, *(taps or ()), *map(np.int32, (start, n, H, relu))))
            xp.matmul(dz[start : start + n], w_hh, out=dh0[:n])  # (n, H) dL/dh_{t-1}     (2.4)

    dw_hh = dz.T @ previous(xp, tape.h, tape.h0, first)  # (H, H)                         (2.5)
    return RNNGrads(dz, dw_hh, dh0)  #                                                    (2.6)
