"""The GRU recurrence on a GPU: the launches of gru.cu. Equation numbers are those of README.md in this folder.

Two forms, and `minirnn.kernels.cuda.plan` chooses. In the step form each step is a library product and one kernel; in the persistent form
one kernel runs the whole sequence. Arrays are CuPy's, float32, float64, float16 or bfloat16; of 16-bit arrays, sums and the carries h_t and
dh_t are float32.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array, GRUGrads, GRUTape, check_packed
from minirnn.kernels.cuda import devices
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import NULL, contiguous, function, wide
from minirnn.kernels.cuda.packed import column_sum, device_starts, previous
from minirnn.kernels.cuda.plan import plan
from minirnn.kernels.packed import starts

UNIT = "gru/gru.cu"
taps = True


def forward(z: Array, w_hh: Array, b_hn: Array, h0: Array, batch_sizes: Array) -> GRUTape:
    """z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,), the last a NumPy array"""
    check_packed("GRU", 3, z, w_hh, batch_sizes, b_hn=b_hn, h0=h0)
    xp, dtype = module_of(z), z.dtype
    (N, H), S, T = h0.shape, len(z), len(batch_sizes)
    h, hn = xp.empty((S, H), dtype), xp.empty((S, H), dtype)
    gates = xp.empty((S, 3 * H), dtype)
    h_t = h0.astype(wide(dtype))  # (N, H) h_{t-1}; the rows of a sequence that has ended stay as they are

    p = plan("gru", "forward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        run = function(xp, UNIT, "gru_persistent_forward", dtype, cooperative=True, shared=p.shared)
        arguments = (z, w_hh, b_hn, h0, h_t, device_starts(xp, batch_sizes), h, gates, hn, *map(np.int32, (T, H, p.units)))
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "gru_step_forward", dtype)
        a = xp.empty((N, 3 * H), dtype)
        h_before = h0  # (n, H) h_{t-1}
        for start, n in zip(starts(batch_sizes).tolist(), batch_sizes.tolist(), strict=False):
            xp.matmul(h_before[:n], w_hh.T, out=a[:n])  # (n, 3H)                         (1.1)
            step(p.blocks(n), p.block, (z, a, b_hn, h_t, h, gates, hn, *map(np.int32, (start, n, H))))
            h_before = h[start : start + n]

    return GRUTape(h, gates, hn, h_t.astype(dtype, copy=False), h0, batch_sizes)


def backward(tape: GRUTape, w_hh: Array, dh: Array | None, dh_n: Array | None, taps: tuple[Array] | None = None) -> GRUGrads:
    """dh (S, H), dh_n (N, H), None means zero; taps: one (S, H) for the whole dL/dh_t of every row"""
    xp, dtype = module_of(w_hh), w_hh.dtype
    (N, H), S, T = tape.h0.shape, len(tape.h), len(tape.batch_sizes)
    dz, da = xp.empty((S, 3 * H), dtype), xp.empty((S, 3 * H), dtype)
    dh = NULL if dh is None else contiguous(xp, dh)
    # (N, H) dL/dh_t on its way back, of (2.7) the half that u hands on; a sequence's rows wait until its own last step (2.1)
    dh_t = xp.zeros((N, H), wide(dtype)) if dh_n is None else xp.ascontiguousarray(dh_n).astype(wide(dtype))
    first = device_starts(xp, tape.batch_sizes)  # (T+1,)

    p = plan("gru", "backward", H, N, dtype, devices.here(xp))
    if p.form == "persistent":
        dh0 = xp.empty((N, H), dtype)
        run = function(xp, UNIT, "gru_persistent_backward", dtype, cooperative=True, shared=p.shared)
        arguments = (
            tape.gates,
            tape.h,
            tape.hn,
            tape.h0,
            w_hh,
            dh,
            dh_t,
            first,
            dz,
            da,
            dh0,
            *(taps or (NULL,)),
            *map(np.int32, (T, H, p.units)),
        )
        run(p.grid, p.block, arguments, shared_mem=p.shared)
    else:
        step = function(xp, UNIT, "gru_step_backward_tapped" if taps else "gru_step_backward", dtype)
        product = xp.empty((N, H), dtype)  # da_{t+1} @ w_hh
        host = starts(tape.batch_sizes).tolist()
        begun = 0  # rows of step t + 1
        for t in range(T - 1, -1, -1):
            start, n = host[t], host[t + 1] - host[t]
            sizes = map(np.int32, (start, host[t - 1] if t > 0 else -1, n, begun, H))
            step(p.blocks(n), p.block, (tape.gates, tape.h, tape.hn, tape.h0, dh, product, dh_t, dz, da, *(taps or ()), *sizes))
            xp.matmul(da[start : start + n], w_hh, out=product[:n])  # (n, H)             (2.7)
            begun = n
        dh0 = (dh_t + product).astype(dtype, copy=False)  # (N, H)

    dw_hh = da.T @ previous(xp, tape.h, tape.h0, first)  # (3H, H)                        (2.8)
    db_hn = column_sum(xp, da, H)  # (H,)                                                 (2.9)
    return GRUGrads(dz, dw_hh, db_hn, dh0)  #                                             (2.10)
