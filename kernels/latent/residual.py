"""Draws whose prior looks at z_{t-1} and whose posterior corrects it (see `minirnn.models.srnn`).

    u = tanh(past_t + B z_{t-1}),   (mu, ls) = P u + p            the prior, ls = ln sigma                                 (1)
    v = tanh(hint_t + W z_{t-1}),   (r, lq) = Q v + q                                                                      (2)
    mq = mu + r,   z_t = mq + exp(lq) noise_t                                                                              (3)

Packed rows: T steps, N sequences, S rows, Z latent, C units in u and in v.
"""

from __future__ import annotations

from typing import NamedTuple

from minirnn.kernels.contract import Array
from minirnn.kernels.modules import array_module
from minirnn.kernels.packed import previous, starts


class Tape(NamedTuple):
    """What the forward pass leaves: its outputs, what the backward pass needs, and the weights."""

    outputs: tuple[Array, ...]  # z, mu, ls, mq, lq: (S, Z) each
    uv: Array  # (S, 2C)
    weights: tuple[Array, ...]  # B and W (2C, Z), P (2Z, C), Q (2Z, C)
    z0: Array  # (N, Z)
    noise: Array  # (S, Z)
    batch_sizes: Array  # (T,)


def forward(
    past: Array,
    hint: Array,
    w_past: Array,
    w_hint: Array,
    w_prior: Array,
    b_prior: Array,
    w_posterior: Array,
    b_posterior: Array,
    z0: Array,
    noise: Array,
    batch_sizes: Array,
) -> Tape:
    """past and hint (S, C), w_past and w_hint (C, Z), w_prior and w_posterior (2Z, C), b_prior (2Z,), z0 (N, Z), noise (S, Z)"""
    (S, C), Z, dtype, xp = past.shape, z0.shape[1], past.dtype, array_module(past)
    both = xp.concatenate((w_past, w_hint))  # (2C, Z)
    uv = xp.concatenate((past, hint), axis=1)  # (S, 2C)
    z, mu, ls, mq, lq = (xp.empty((S, Z), dtype) for _ in range(5))
    before = z0

    for start, n in zip(starts(batch_sizes), batch_sizes, strict=False):
        rows = slice(start, start + n)
        uv[rows] = xp.tanh(uv[rows] + before[:n] @ both.T)  # (n, 2C)
        prior = uv[rows, :C] @ w_prior.T + b_prior  # (n, 2Z)                                                              (1)
        posterior = uv[rows, C:] @ w_posterior.T + b_posterior  # (n, 2Z)                                                  (2)
        mu[rows], ls[rows], lq[rows] = prior[:, :Z], prior[:, Z:], posterior[:, Z:]
        mq[rows] = mu[rows] + posterior[:, :Z]
        before = z[rows] = mq[rows] + xp.exp(lq[rows]) * noise[rows]  #                                                    (3)

    return Tape((z, mu, ls, mq, lq), uv, (both, w_prior, w_posterior), z0, noise, batch_sizes)


def backward(tape: Tape, _: Array, *grads: Array | None) -> tuple[Array, ...]:
    """The gradients of forward's first nine arguments, from those of z, mu, ls, mq and lq, (S, Z) each or None for zero."""
    both, w_prior, w_posterior = tape.weights
    z, _mu, _ls, _mq, lq = tape.outputs
    Z, C, N, xp = z.shape[1], w_prior.shape[1], len(tape.z0), array_module(z)
    dz_out, dmu_out, dls_out, dmq_out, dlq_out = (xp.zeros_like(z) if g is None else g for g in grads)
    duv = xp.empty_like(tape.uv)  # (S, 2C) before the tanh
    dprior, dposterior = (xp.empty((len(z), 2 * Z), z.dtype) for _ in range(2))
    dz = xp.zeros((N, Z), z.dtype)  # what comes back from the step after
    slope = 1 - tape.uv * tape.uv
    spread = xp.exp(lq) * tape.noise
    dprior[:, Z:] = dls_out

    for start, n in reversed(list(zip(starts(tape.batch_sizes), tape.batch_sizes, strict=False))):
        rows = slice(start, start + n)
        dz_t = dz[:n] + dz_out[rows]
        dmq = dmq_out[rows] + dz_t
        dposterior[rows, :Z] = dmq
        dposterior[rows, Z:] = dlq_out[rows] + dz_t * spread[rows]  # of (3)
        dprior[rows, :Z] = dmu_out[rows] + dmq
        xp.matmul(dprior[rows], w_prior, out=duv[rows, :C])  # of (1)
        xp.matmul(dposterior[rows], w_posterior, out=duv[rows, C:])  # of (2)
        duv[rows] *= slope[rows]
        dz[:n] = duv[rows] @ both

    dboth = duv.T @ previous(z, tape.z0, tape.batch_sizes)  # (2C, Z)
    return (
        duv[:, :C],
        duv[:, C:],
        dboth[:C],
        dboth[C:],
        dprior.T @ tape.uv[:, :C],
        dprior.sum(0),
        dposterior.T @ tape.uv[:, C:],
        dposterior.sum(0),
        dz,
    )
