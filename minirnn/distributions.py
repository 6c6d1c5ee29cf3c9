"""Distributions of vectors whose elements are independent, and of one choice among V: differentiable in their parameters.

    log_prob(x)   ln p(x), of a density or of probabilities        entropy()   -E_p ln p
    kl(q)         KL(p || q) = E_p [ln p - ln q], in closed form    sample      a draw; of a Gaussian reparameterised

All of them sum over the last axis, the elements of one vector; the axes ahead are a batch. Parameters broadcast as in NumPy. What must not
overflow is written with softplus and log-softmax. Random numbers are drawn on the host and moved: a seed gives one sample on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirnn import ops
from minirnn.device import Array, beside, here
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, diag std^2), std = exp(log_std).

    mean     (..., D)
    log_std  (..., D), or what broadcasts to the mean's shape
    """

    mean: Tensor
    log_std: Tensor

    @property
    def std(self) -> Tensor:
        """(..., D), exp(log_std)."""
        return self.log_std.exp()

    def log_prob(self, x: Tensor | Array) -> Tensor:
        """-sum_d [ ((x - mean) / std)^2 / 2 + ln std + ln(2 pi) / 2 ]: (...), for x (..., D)."""
        u = (x - self.mean) * (-self.log_std).exp()  # (..., D)
        return -(u * u * 0.5 + self.log_std + 0.5 * LOG_2PI).sum(-1)

    def sample(self, noise: Tensor | Array | None = None, *, rng: Rng = None) -> Tensor:
        """mean + std noise (..., D), with noise from N(0, 1): the gradient flows into both parameters (Kingma and Welling 2014).

        The noise is drawn from `rng` if it is not given; given, it may have more axes ahead, for several draws.
        """
        if noise is None:
            noise = beside(generator(rng).standard_normal(self.mean.shape).astype(self.mean.dtype), self.mean.data)
        return self.mean + self.std * noise

    def entropy(self) -> Tensor:
        """sum_d [ ln std + (1 + ln(2 pi)) / 2 ]: (...)"""
        return (ops.broadcast_to(self.log_std, self.mean.shape) + 0.5 * (1 + LOG_2PI)).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other): (...)"""
        return self.kl_terms(other).sum(-1)

    def kl_terms(self, other: Gaussian) -> Tensor:
        """ln(s' / s) + (s^2 / s'^2 + ((m - m') / s')^2 - 1) / 2 of every element, the dashes being the other's: (..., D)."""
        ratio = self.log_std - other.log_std  # ln(s / s')
        shift = (self.mean - other.mean) * (-other.log_std).exp()
        return ((2 * ratio).exp() + shift * shift - 1) * 0.5 - ratio


def standard_normal_kl(q: Gaussian, by_dimension: bool = False) -> Tensor:
    """KL(q || N(0, I)) = sum_d [ (mean^2 + std^2 - 1) / 2 - ln std ]: (...), or its terms (..., D) where `by_dimension`."""
    terms = (q.mean * q.mean + (2 * q.log_std).exp() - 1) * 0.5 - q.log_std
    return terms if by_dimension else terms.sum(-1)


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """Independent coins, p = sigmoid(logits) that an element is 1; logits (..., D)."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """(..., D), the probabilities p."""
        return ops.sigmoid(self.logits)

    def log_prob(self, x: Tensor | Array) -> Tensor:
        """sum_d [ x logit - ln(1 + e^logit) ]: (...), for x (..., D) of zeros and ones."""
        return (self.logits * x - ops.softplus(self.logits)).sum(-1)

    def sample(self, rng: Rng = None) -> Array:
        """Zeros and ones (..., D) in the dtype of the logits, without a gradient."""
        p = self.mean
        return (beside(generator(rng).random(p.shape), p.data) < p.data).astype(p.dtype)

    def entropy(self) -> Tensor:
        """sum_d [ ln(1 + e^logit) - p logit ]: (...)"""
        return (ops.softplus(self.logits) - self.mean * self.logits).sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        """sum_d [ p (logit - logit') + ln(1 + e^logit') - ln(1 + e^logit) ]: (...)"""
        gap = self.mean * (self.logits - other.logits)
        return (gap + ops.softplus(other.logits) - ops.softplus(self.logits)).sum(-1)


@dataclass(frozen=True, eq=False)
class Categorical:
    """One of V classes, p = softmax(logits); logits (..., V), of which some may be -inf."""

    logits: Tensor

    @property
    def probs(self) -> Tensor:
        """(..., V), which sum to 1 over the last axis."""
        return ops.softmax(self.logits)

    def log_prob(self, x: Any) -> Tensor:
        """ln p_x: (...), for classes x (...) in 0..V-1."""
        return -ops.cross_entropy(self.logits, x, reduction="none")

    def sample(self, rng: Rng = None) -> Array:
        """Classes (...), without a gradient: the largest of logits + Gumbel noise (Maddison et al. 2014)."""
        gumbel = beside(generator(rng).gumbel(size=self.logits.shape), self.logits.data)
        return (self.logits.data + gumbel).argmax(-1)

    def entropy(self) -> Tensor:
        """-sum_v p_v ln p_v: (...)"""
        return -self._expected(ops.log_softmax(self.logits))

    def kl(self, other: Categorical) -> Tensor:
        """sum_v p_v (ln p_v - ln p'_v): (...); infinite where the other excludes a class that this one has."""
        possible = self.probs.data > 0
        gap = ops.where(possible, ops.log_softmax(self.logits), 0) - ops.where(possible, ops.log_softmax(other.logits), 0)
        return self._expected(gap)

    def _expected(self, values: Tensor) -> Tensor:
        """sum_v p_v values_v, where a class of probability 0 counts nothing, whatever its value."""
        p = self.probs
        return (p * ops.where(p.data > 0, values, 0)).sum(-1)


def standard_normal(shape: tuple[int, ...], dtype: Any = np.float32) -> Gaussian:
    """N(0, I) over vectors (..., D) of `shape`."""
    return Gaussian(Tensor(here(np.zeros(shape, dtype))), Tensor(here(np.zeros(shape, dtype))))
