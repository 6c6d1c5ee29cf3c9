"""Least squares through a few points: a line, and a power law, whose exponent is the slope of a line between logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Line(NamedTuple):
    """y = intercept + slope x, and the standard error of the slope: None for two points, through which a line goes exactly."""

    slope: float
    intercept: float
    error: float | None


class Power(NamedTuple):
    """y = factor x^exponent, and the standard error of the exponent (None: two points)."""

    exponent: float
    factor: float
    error: float | None


def line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """None where there are fewer than two different x."""
    if len(set(x)) < 2:
        return None
    u, v = np.asarray(x, np.float64), np.asarray(y, np.float64)
    u, centre = u - u.mean(), u.mean()
    slope = float(u @ v / (u @ u))
    left = v - v.mean() - slope * u
    error = float(np.sqrt(left @ left / (len(u) - 2) / (u @ u))) if len(u) > 2 else None
    return Line(slope, float(v.mean() - slope * centre), error)


def power(x: Sequence[float], y: Sequence[float]) -> Power | None:
    """Of positive x and y; every point weighs the same in relative terms. None where there are fewer than two different x."""
    fitted = line([float(value) for value in np.log(x)], [float(value) for value in np.log(y)])
    return None if fitted is None else Power(fitted.slope, float(np.exp(fitted.intercept)), fitted.error)


def larger_half(x: Sequence[float]) -> list[int]:
    """The places of the larger half of x, three at least where there are three: where a power law has taken over from constant costs."""
    order = sorted(range(len(x)), key=lambda k: x[k])
    return sorted(order[-max(3, -(-len(x) // 2)) :])
