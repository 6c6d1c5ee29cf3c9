"""The LSTM recurrence on a GPU: the launches of lstm.cu. Equation numbers are those of README.md in this folder.

Two forms, and `minirnn.kernels.cuda.plan` chooses. In the step form each step is a library product and one kernel; in the persistent form
one kernel runs the whole sequence. Arrays are CuPy's, float32, float64, float16 or bfloat16; of 16-bit arrays, sums and the carries c_t and
dc_t are float32.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, LSTMGrads, LSTMTape, check_packed
from minirnn.kernels.cuda import devices
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import NULL, contiguous, function, wide
from minirnn.kernels.cuda.packed import device_starts, previous
from minirnn.kernels.cuda.plan import plan
from minirnn.kernels.packed import starts

UNIT = "lstm/lstm.cu"
taps = True


def forward(z: Array, w_hh: Array, h0: Array, c0: Array, batch_sizes: Array) -> LSTMTape:
    """z (S, 4H), w_hh (4H, H), h0 (N, H), c0 (N, H), batch_sizes (T,), the last a NumPy array"""
    check_packed("LSTM", 4, z, w_hh, batch_sizes, h0=h0, c0=c0)
    xp, dtype = module_of(z), z.dtype
    (N, H), S, T = h0.shape, len(z), len(batch_sizes)
    h, c = xp.empty((S, H), dtype), xp.empty((S, H), dtype)
    gates = xp.empty((S, 4 * H), dtype)
    h_n = xp.empty((N, H), dtype)
    c_t = c0.astype(wide(dtype))  # (N, H) c_{t-1}; the rows of a sequence that has ended stay as they are

    p = plan("lstm", "forward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        run = function(xp, UNIT, "lstm_persistent_forward", dtype, cooperative=True, shared=p.shared)
        arguments = (z, w_hh, h0, c_t, device_starts(xp, batch_sizes), h, c, gates, h_n, *map(np.int32, (T, H, p.units)))
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "lstm_step_forward", dtype)
        a = xp.empty((N, 4 * H), dtype)
        first, sizes = starts(batch_sizes), [*batch_sizes.tolist(), 0]
        h_before = h0  # (n, H) h_{t-1}
        for start, n, going_on in zip(first.tolist(), sizes, sizes[1:], strict=False):
            xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, 4H)                         (1.1)
            step(p.blocks(n), p.block, (z, a, c_t, h, c, gates, h_n, *map(np.int32, (start, n, going_on, H))))
            h_before = h[start : start + n]

    return LSTMTape(h, c, gates, h_n, c_t.astype(dtype, copy=False), h0, c0, batch_sizes)


def backward(
    tape: LSTMTape,
    w_hh: Array,
    dh: Array | None,
    dc: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    taps: tuple[Array, Array] | None = None,
) -> LSTMGrads:
    """dh (S, H), dc (S, H), dh_n (N, H), dc_n (N, H), None means zero; taps: two (S, H) for the whole dL/dh_t and dL/dc_t of every row"""
    xp, dtype = module_of(w_hh), w_hh.dtype
    (N, H), S, T = tape.h0.shape, len(tape.h), len(tape.batch_sizes)
    dh, dc, dh_n = (contiguous(xp, gradient) for gradient in (dh, dc, dh_n))
    dz = xp.empty((S, 4 * H), dtype)
    # (N, H) dL/dc_t on its way back; a sequence's rows wait until its own last step (2.1)
    dc_t = xp.zeros((N, H), wide(dtype)) if dc_n is None else xp.ascontiguousarray(dc_n).astype(wide(dtype))
    first = device_starts(xp, tape.batch_sizes)  # (T+1,)

    p = plan("lstm", "backward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        dh0 = xp.empty((N, H), dtype)
        run = function(xp, UNIT, "lstm_persistent_backward", dtype, cooperative=True, shared=p.shared)
        gradients = tuple(NULL if gradient is None else gradient for gradient in (dh, dc, dh_n))
        arguments = (
            tape.gates,
            tape.c,
            tape.c0,
            w_hh,
            *gradients,
            dc_t,
            first,
            dz,
            dh0,
            *(taps or (NULL, NULL)),
            *map(np.int32, (T, H, p.units)),
        )
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "lstm_step_backward_tapped" if taps else "lstm_step_backward", dtype)
        dh0 = xp.zeros((N, H), dtype) if dh_n is None else dh_n.copy()  # (N, H) dL/dh_t on its way back
        gradients = tuple(NULL if gradient is None else gradient for gradient in (dh, dc))
        host = starts(tape.batch_sizes).tolist()
        for t in range(T - 1, -1, -1):
            start, n = host[t], host[t + 1] - host[t]
            before = host[t - 1] if t > 0 else -1
            arguments = (tape.gates, tape.c, tape.c0, *gradients, dh0, dc_t, dz, *(taps or ()), *map(np.int32, (start, before, n, H)))
            step(p.blocks(n), p.block, arguments)
            xp.matmul(dz[start : start + n], w_hh, out=dh0[:n])  # (n, H) dL/dh_{t-1}     (2.10)

    dw_hh = dz.T @ previous(xp, tape.h, tape.h0, first)  # (4H, H)                        (2.11)
    return LSTMGrads(dz, dw_hh, dh0, dc_t.astype(dtype, copy=False))  #                   (2.12)
