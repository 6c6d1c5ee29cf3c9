"""First values of parameters: each function overwrites a parameter in place and returns it.

Numbers are drawn on the CPU in float64 and rounded to the parameter's dtype, so one seed gives one model in every dtype and on every
device, to rounding.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from minirnn.device import to_device
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

T = TypeVar("T", bound=Tensor)


def _assign(p: T, values: Any) -> T:
    p.data[...] = to_device(np.asarray(values, p.dtype), p.device)
    return p


def _fans(p: Tensor, name: str) -> tuple[int, int]:
    """Inputs and outputs of one unit: p is (out, in, *receptive field)."""
    if p.ndim < 2:
        raise ValueError(f"{name}: needs at least two axes (out, in, ...), got {p.shape}")
    field = math.prod(p.shape[2:])
    return p.shape[1] * field, p.shape[0] * field


def zeros_(p: T) -> T:
    """Zeros."""
    return _assign(p, np.zeros(p.shape))


def ones_(p: T) -> T:
    """Ones."""
    return _assign(p, np.ones(p.shape))


def constant_(p: T, value: float) -> T:
    """One value everywhere."""
    return _assign(p, np.full(p.shape, value))


def uniform_(p: T, low: float = 0.0, high: float = 1.0, rng: Rng = None) -> T:
    """Uniform on [low, high)."""
    return _assign(p, generator(rng).uniform(low, high, p.shape))


def normal_(p: T, mean: float = 0.0, std: float = 1.0, rng: Rng = None) -> T:
    """Normal with this mean and standard deviation."""
    return _assign(p, generator(rng).normal(mean, std, p.shape))


def xavier_uniform_(p: T, gain: float = 1.0, rng: Rng = None) -> T:
    """Uniform on +-gain sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, equation 16."""
    fan_in, fan_out = _fans(p, "xavier_uniform_")
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(p, -bound, bound, rng)


def kaiming_uniform_(p: T, a: float = 0.0, rng: Rng = None) -> T:
    """Uniform on +-sqrt(6 / ((1 + a^2) fan_in)), a the slope of the rectifier below zero: He et al. 2015, equation 14."""
    bound = math.sqrt(6 / ((1 + a * a) * _fans(p, "kaiming_uniform_")[0]))
    return uniform_(p, -bound, bound, rng)


def orthogonal_(p: T, gain: float = 1.0, rng: Rng = None) -> T:
    """Gain times a random matrix with orthonormal rows or columns, whichever are fewer: Saxe et al. 2014.

    Axes after the first count as one.
    """
    if p.ndim < 2:
        raise ValueError(f"orthogonal_: needs at least two axes, got {p.shape}")
    rows, columns = p.shape[0], math.prod(p.shape[1:])
    q, r = np.linalg.qr(generator(rng).standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
    return _assign(p, gain * (q if rows >= columns else q.T).reshape(p.shape))
