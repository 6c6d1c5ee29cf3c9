"""The weights of particles, and which of them survive: what a particle filter is, beside the model whose states the particles are.

A particle filter carries K particles of each series. Step t multiplies the weight of each by w_t; where too few have weight left, survivors
are drawn and all weigh alike again. With log_w the logarithms of the weights since then,

    ln p(x_1..x_t) is estimated by   log_z + ln 1/K sum_k e^(log_w_k)

where log_z is what that second term was at all drawings before, added up (Maddison et al. 2017, algorithm 1).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from minirnn import ops
from minirnn.device import Array, array_module
from minirnn.tensor import Tensor

Resampling = Literal["systematic", "multinomial"]


class Weights:
    """The weights of K particles of each of n series, the longest series first.

    Args:
        n, K: how many there are.
        like: of what dtype and on which device.
    """

    def __init__(self, n: int, K: int, like: Tensor) -> None:
        zeros = array_module(like.data).zeros((n, K), like.dtype)
        self.log_w, self.log_z = Tensor(zeros), Tensor(zeros[:, 0])
        self._finished: list[Tensor] = []

    def keep(self, n: int) -> None:
        """The series after the first n have ended."""
        if n < len(self.log_w):
            self._finished.append(self.log_z[n:] + log_mean(self.log_w[n:]))
            self.log_w, self.log_z = self.log_w[:n], self.log_z[:n]

    def multiply(self, log_w: Tensor) -> Array:
        """One step's weights, in logarithms, (n K,): the normalised ones (n, K), on the host, for which a device is waited for."""
        self.log_w = self.log_w + log_w.reshape(*self.log_w.shape)
        return normalised(self.log_w.numpy())

    def survivors(self, weights: Array, rng: np.random.Generator, how: Resampling) -> Array | None:
        """Whose children the particles are, (n K,), in the series whose effective size is below K / 2; None where it is in none."""
        n, K = weights.shape
        poor = effective_size(weights) < K / 2
        if not poor.any():
            return None
        chosen = np.where(poor[:, None], resample(weights, rng, how), np.arange(K))
        self.log_z = self.log_z + ops.where(poor, log_mean(self.log_w), 0)
        self.log_w = ops.where(poor[:, None], 0, self.log_w)
        return (chosen + K * np.arange(n)[:, None]).reshape(-1)

    def estimate(self) -> Tensor:
        """ln p(x_1..x_T) of every series, the longest first."""
        self.keep(0)
        return ops.concatenate(self._finished[::-1])


def normalised(log_w: Array) -> Array:
    """Weights (n, K) in float64 that add up to 1, from their logarithms; all alike where every one of them is zero."""
    log_w = log_w.astype(np.float64)
    top = log_w.max(1, keepdims=True)
    w = np.exp(log_w - np.where(np.isfinite(top), top, 0))
    w[~np.isfinite(top[:, 0])] = 1
    return np.asarray(w / w.sum(1, keepdims=True))


def effective_size(weights: Array) -> Array:
    """1 / sum_k W_k^2 (n,): between 1, one particle has all the weight, and K."""
    return np.asarray(1 / (weights * weights).sum(1))


def resample(weights: Array, rng: np.random.Generator, how: Resampling = "systematic", count: int | None = None) -> Array:
    """Survivors (n, count) of particles with weights (n, K), each chosen count W_k times in expectation; count is K if None.

    "systematic" puts `count` equally spaced points, moved by one uniform draw, along the cumulated weights: each particle is chosen
    floor(count W_k) or ceil(count W_k) times. "multinomial" draws each survivor by itself.
    """
    n, K = weights.shape
    count = K if count is None else count
    if how == "systematic":
        points = (np.arange(count) + rng.random((n, 1))) / count
    elif how == "multinomial":
        points = rng.random((n, count))
    else:
        raise ValueError(f'resampling must be "systematic" or "multinomial", got {how!r}')
    cumulated = np.cumsum(weights, axis=1)
    cumulated /= cumulated[:, -1:]
    return np.stack([np.searchsorted(c, p, side="right") for c, p in zip(cumulated, points, strict=True)]).clip(0, K - 1)


def log_mean(log_w: Tensor) -> Tensor:
    """ln 1/K sum_k e^(log_w_k): (n,)"""
    return ops.logsumexp(log_w, 1) - math.log(log_w.shape[1])
