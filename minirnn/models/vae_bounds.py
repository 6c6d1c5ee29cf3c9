"""What a variational auto-encoder has learnt, estimated from its posteriors q(z | x_n) = N(mean_n, diag std_n^2), n = 1..N.

    importance-weighted bound    ln p(x) >= E ln 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), z_k ~ q(z | x)     Burda et al. 2016, equation 8
    mutual information           I(x; z) = E_n E_q [ ln q(z | x_n) - ln q(z) ], q(z) = 1/N sum_m q(z | x_m)   Hoffman and Johnson 2016
    active units                 the dimensions whose mean moves with x: Var_n mean_nd > 0.01                 Burda et al. 2016, section 5.2

The bound grows with K towards ln p(x); K = 1 is the ELBO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from minirnn.device import Array
from minirnn.distributions import LOG_2PI, Gaussian
from minirnn.random import Rng, generator

ROWS = 2048  # words decoded at once, so that their logits (ROWS, V) stay small
ACTIVE = 0.01


class Model(Protocol):
    """What the bound needs of a model."""

    def posteriors(self, batches: Any) -> Gaussian: ...

    def log_likelihood(self, batch: Sequence[Array], z: Array) -> Array: ...


def importance_weighted(model: Model, batch: Sequence[Array], samples: int, rng: Rng = None) -> Array:
    """The importance-weighted bound on ln p(x) of each sentence of a batch, (N,), from K = `samples` draws of z for each.

    As many draws are decoded at once as have about 2048 words; their number changes no draw.
    """
    if samples < 1:
        raise ValueError(f"importance_weighted: samples must be at least 1, got {samples}")
    rng, q = generator(rng), model.posteriors([batch])
    mean, log_std = q.mean.numpy(), q.log_std.numpy()  # (N, Z)
    N, Z = mean.shape
    at_once = max(1, ROWS // (sum(map(len, batch)) + N))
    weights = np.empty((samples, N))  # ln p(x, z) - ln q(z | x)
    for start in range(0, samples, at_once):
        k = min(at_once, samples - start)
        noise = rng.standard_normal((k, N, Z))
        z = mean + np.exp(log_std) * noise  # (k, N, Z)
        likelihood = model.log_likelihood([*batch] * k, z.reshape(k * N, Z)).reshape(k, N)
        weights[start : start + k] = likelihood + (0.5 * (noise * noise - z * z) + log_std).sum(2)
    return _log_mean_exp(weights)


def mutual_information(q: Gaussian, *, samples: int = 1, rng: Rng = None) -> float:
    """I(x; z) in nats of N sentences with posteriors q, from `samples` draws of z for each; never above ln N.

    The sum over m includes m = n. With few sentences the estimate is cut off at ln N, and so is too low where they are told apart well.
    """
    mean, log_std = (np.asarray(t.numpy(), np.float64) for t in (q.mean, q.log_std))  # (N, Z)
    rng = generator(rng)
    draws = [mean + np.exp(log_std) * rng.standard_normal(mean.shape) for _ in range(samples)]
    return float(np.mean([information_of(mean, log_std, z) for z in draws]))


def information_of(mean: Array, log_std: Array, z: Array) -> float:
    """E_n [ ln q(z_n | x_n) - ln 1/N sum_m q(z_n | x_m) ] at given z (N, Z), in blocks of rows."""
    mean, log_std, z = (np.asarray(a, np.float64) for a in (mean, log_std, z))
    precision = np.exp(-2 * log_std)  # (N, Z)
    linear, squared = mean * precision, -0.5 * precision
    constant = (squared * mean * mean - log_std - 0.5 * LOG_2PI).sum(1)  # (N,)
    total = 0.0
    for start in range(0, len(z), 512):
        block = z[start : start + 512]
        log_q = block @ linear.T + (block * block) @ squared.T + constant  # (512, N) ln q(z_n | x_m)
        own = log_q[np.arange(len(block)), start + np.arange(len(block))]
        total += float((own - _log_mean_exp(log_q.T)).sum())
    return total / len(z)


def active_units(q: Gaussian, threshold: float = ACTIVE) -> int:
    """How many dimensions d of N posteriors have Var_n mean_nd above `threshold`."""
    return int((np.asarray(q.mean.numpy(), np.float64).var(0) > threshold).sum())


def _log_mean_exp(a: Array) -> Array:
    """ln mean_k e^a_kn over the first axis"""
    top = a.max(0)
    result: Array = np.log(np.exp(a - top).mean(0)) + top
    return result
