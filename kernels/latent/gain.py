"""An LSTM over its own draws: z_t from a prior that meets a hint from the data (see `minirnn.models.neural_ssm`).

    a = W [z_{t-1}, h_{t-1}] + b,  i, f, o = sigmoid(a),  g = tanh(a),  c_t = f c_{t-1} + i g,  h_t = o tanh c_t           (1)
    (mu, ls) = P h_t + p                                          the prior, ls = ln sigma                                 (2)
    u = tanh(hint_t + V [h_t, z_{t-1}])                                                                                    (3)
    (e, s) = U u + v                                                                                                       (4)
    k = sigmoid(s),  mq = (1 - k) mu + e,  lq = ls - softplus(s) / 2 = ls + ln(1 - k) / 2                                (5)
    z_t = mq + exp(lq) noise_t                                                                                             (6)

h_0 = c_0 = 0. Packed rows: T steps, N sequences, S rows, Z latent, H hidden, C combining units.
"""

from __future__ import annotations

from typing import NamedTuple

from minirnn.kernels.contract import Array
from minirnn.kernels.lstm.numpy_ import sigmoid
from minirnn.kernels.modules import array_module
from minirnn.kernels.packed import starts


class Tape(NamedTuple):
    """What the forward pass leaves: its outputs, what the backward pass needs, and the weights."""

    outputs: tuple[Array, ...]  # z, mu, ls, mq, lq: (S, Z) each
    zh: Array  # (S, Z+H) z_{t-1}, h_{t-1}
    hz: Array  # (S, H+Z) h_t, z_{t-1}
    gates: Array  # (S, 4H) i, f, g, o
    c_before: Array  # (S, H) c_{t-1}
    tanh_c: Array  # (S, H)
    u: Array  # (S, C)
    es: Array  # (S, 2Z)
    weights: tuple[Array, ...]  # W (4H, Z+H), P (2Z, H), V (C, H+Z), U (2Z, C)
    noise: Array  # (S, Z)
    batch_sizes: Array  # (T,)


def forward(
    hint: Array,
    w_hh: Array,
    w_ih: Array,
    b: Array,
    w_prior: Array,
    b_prior: Array,
    w_combine: Array,
    w_posterior: Array,
    b_posterior: Array,
    z0: Array,
    noise: Array,
    batch_sizes: Array,
) -> Tape:
    """hint (S, C), w_hh (4H, H), w_ih (4H, Z), b (4H,), w_prior (2Z, H), w_combine (C, H+Z), w_posterior (2Z, C), biases of one axis,
    z0 (N, Z), noise (S, Z), batch_sizes (T,)"""
    (S, C), H, (N, Z), dtype, xp = hint.shape, w_hh.shape[1], z0.shape, hint.dtype, array_module(hint)
    W = xp.concatenate((w_ih, w_hh), axis=1)  # (4H, Z+H)
    zh, hz = xp.empty((S, Z + H), dtype), xp.empty((S, H + Z), dtype)
    gates, c_before, tanh_c = xp.empty((S, 4 * H), dtype), xp.empty((S, H), dtype), xp.empty((S, H), dtype)
    u, es, prior = xp.empty((S, C), dtype), xp.empty((S, 2 * Z), dtype), xp.empty((S, 2 * Z), dtype)
    z, mq, lq = (xp.empty((S, Z), dtype) for _ in range(3))
    before, c = xp.concatenate((z0, xp.zeros((N, H), dtype)), axis=1), xp.zeros((N, H), dtype)  # z_{t-1} and h_{t-1}; c_{t-1}

    for start, n in zip(starts(batch_sizes), batch_sizes, strict=False):
        rows = slice(start, start + n)
        zh[rows], c_before[rows] = before[:n], c[:n]
        a = zh[rows] @ W.T + b  # (n, 4H)
        a[:, 2 * H : 3 * H] *= 2  # tanh(x) = 2 sigmoid(2 x) - 1: one call for all gates
        a = sigmoid(a)
        a[:, 2 * H : 3 * H] = 2 * a[:, 2 * H : 3 * H] - 1
        gates[rows] = a
        c = a[:, H : 2 * H] * c[:n] + a[:, :H] * a[:, 2 * H : 3 * H]
        tanh_c[rows] = xp.tanh(c)
        h = a[:, 3 * H :] * tanh_c[rows]  # (n, H)                                                                         (1)
        hz[rows, :H], hz[rows, H:] = h, before[:n, :Z]
        prior[rows] = h @ w_prior.T + b_prior  # (n, 2Z)                                                                   (2)
        u[rows] = xp.tanh(hint[rows] + hz[rows] @ w_combine.T)  # (n, C)                                                   (3)
        es[rows] = u[rows] @ w_posterior.T + b_posterior  # (n, 2Z)                                                        (4)
        mu, ls, e, s = prior[rows, :Z], prior[rows, Z:], es[rows, :Z], es[rows, Z:]
        mq[rows] = sigmoid(-s) * mu + e
        lq[rows] = ls - 0.5 * (xp.maximum(s, 0) + xp.log1p(xp.exp(-xp.abs(s))))  #                                         (5)
        z[rows] = mq[rows] + xp.exp(lq[rows]) * noise[rows]  #                                                             (6)
        before = xp.concatenate((z[rows], h), axis=1)

    outputs = z, xp.ascontiguousarray(prior[:, :Z]), xp.ascontiguousarray(prior[:, Z:]), mq, lq
    return Tape(outputs, zh, hz, gates, c_before, tanh_c, u, es, (W, w_prior, w_combine, w_posterior), noise, batch_sizes)


def backward(
    tape: Tape, w_hh: Array, *grads: Array | None, out: Array | None = None, taps: tuple[Array, Array] | None = None
) -> tuple[Array, ...]:
    """The gradients of forward's first ten arguments, from those of z, mu, ls, mq and lq, (S, Z) each or None for zero.

    out (S, 4H) for da; taps: two (S, H) for the whole dL/dh_t and dL/dc_t of every row.
    """
    W, w_prior, w_combine, w_posterior = tape.weights
    z, mu, _, _, lq = tape.outputs
    Z, H, N, xp = z.shape[1], w_hh.shape[1], int(tape.batch_sizes[0]), array_module(z)
    dz_out, dmu_out, dls_out, dmq_out, dlq_out = (xp.zeros_like(z) if g is None else g for g in grads)
    da, dprior = xp.empty_like(tape.gates) if out is None else out, xp.empty_like(tape.es)  # (S, 4H), (S, 2Z)
    dv, des = xp.empty_like(tape.u), xp.empty_like(tape.es)  # (S, C) before the tanh, (S, 2Z)
    # what comes back from the step after; the rows of a sequence wait until its own last step
    dz, dh, dc = xp.zeros((N, Z), z.dtype), xp.zeros((N, H), z.dtype), xp.zeros((N, H), z.dtype)
    rest = sigmoid(-tape.es[:, Z:])  # (S, Z) 1 - k
    spread = xp.exp(lq) * tape.noise
    i, f, g, o = (tape.gates[:, j * H : (j + 1) * H] for j in range(4))  # (S, H) each
    slope_i, slope_f, slope_g, slope_o = g * i * (1 - i), tape.c_before * f * (1 - f), i * (1 - g * g), tape.tanh_c * o * (1 - o)
    slope_c = o * (1 - tape.tanh_c * tape.tanh_c)
    slope_u = 1 - tape.u * tape.u

    for start, n in reversed(list(zip(starts(tape.batch_sizes), tape.batch_sizes, strict=False))):
        rows = slice(start, start + n)
        dz_t = dz[:n] + dz_out[rows]
        dmq = dmq_out[rows] + dz_t
        dlq = dlq_out[rows] + dz_t * spread[rows]  # of (6)
        dmu = dmq * rest[rows]
        des[rows, :Z] = dmq
        des[rows, Z:] = (rest[rows] - 1) * (dmu * mu[rows] + 0.5 * dlq)
        dprior[rows, :Z] = dmu_out[rows] + dmu
        dprior[rows, Z:] = dls_out[rows] + dlq  # of (5)
        dv[rows] = (des[rows] @ w_posterior) * slope_u[rows]  # of (4), (3)
        dhz = dv[rows] @ w_combine  # (n, H+Z)
        dh_t = dh[:n] + dhz[:, :H] + dprior[rows] @ w_prior  # of (3), (2)
        dc_t = dc[:n] + dh_t * slope_c[rows]
        if taps is not None:
            taps[0][rows], taps[1][rows] = dh_t, dc_t
        da_t = da[rows]
        xp.multiply(dc_t, slope_i[rows], out=da_t[:, :H])
        xp.multiply(dc_t, slope_f[rows], out=da_t[:, H : 2 * H])
        xp.multiply(dc_t, slope_g[rows], out=da_t[:, 2 * H : 3 * H])
        xp.multiply(dh_t, slope_o[rows], out=da_t[:, 3 * H :])
        dzh = da_t @ W  # (n, Z+H)                                                                                    of (1)
        dz[:n], dh[:n], dc[:n] = dzh[:, :Z] + dhz[:, H:], dzh[:, Z:], dc_t * f[rows]

    dW = da.T @ tape.zh  # (4H, Z+H)
    return (
        dv,
        dW[:, Z:],
        dW[:, :Z],
        da.sum(0),
        dprior.T @ tape.hz[:, :H],
        dprior.sum(0),
        dv.T @ tape.hz,
        des.T @ tape.u,
        des.sum(0),
        dz,
    )
