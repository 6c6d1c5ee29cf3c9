"""exp, tanh and sigmoid for Numba loops, in float32 and float64: additions, products, one division, no branch and no call.

The compiler computes several of them at once, which it cannot do with the C library's. All rest on

    e^s - 1 = 2^n (e^r - 1) + (2^n - 1)        n = round(s / ln 2),   r = s - n ln 2 in [-0.35, 0.35]

ln 2 is subtracted in two parts, of which the first has so few bits that its product with n is exact (Cody and Waite). e^r - 1 is its Taylor
series: 7 terms leave 2e-8 relative in float32, 13 leave 2e-17 in float64, below the rounding. Then

    exp(x) = 2^n (1 + (e^r - 1))        tanh(x) = u / (u + 2), u = e^2x - 1        sigmoid(x) = 1 / (1 + e^-x)

so tanh keeps its relative accuracy around 0. Arguments are clamped where the result has saturated, by comparisons that are false for NaN:
infinities saturate, NaN stays NaN. tanh and sigmoid take a number or a Vector of `vectors.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from minirnn.kernels.vectors import Vector, at_most, shifted_bits

Real = Callable[[float], float]


def exp(x: float) -> float:
    """e^x, to 2 units in the last place; 0 where it would be subnormal. For Numba functions."""
    return math.exp(x)


def tanh(x: float) -> float:
    """tanh x, to 4 units in the last place. For Numba functions."""
    return math.tanh(x)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), to 4 units in the last place. For Numba functions."""
    return 0.5 * math.tanh(0.5 * x) + 0.5


def _functions(real: Any, integer: Any, mantissa: int, bias: int, log2_high: float, log2_low: float, terms: int) -> tuple[Real, Real, Real]:
    """exp, tanh and sigmoid of one dtype. Every constant must have that dtype: one float64 among them would make a float32 loop float64."""
    zero, one, two, infinity = real(0), real(1), real(2), real(np.inf)
    per_log2, high, low = real(1 / math.log(2)), real(log2_high), real(log2_low)
    rounder = real(1.5 * 2**mantissa)  # a small number added to it leaves the nearest integer in the lowest bits
    taylor = tuple(real(1 / math.factorial(k)) for k in range(terms, 0, -1))
    bits, offset = integer(mantissa), integer(bias)
    lowest = real(math.log(np.finfo(real).tiny))
    highest = real(math.log(np.finfo(real).max) - 0.5)  # half a power of 2 early: 2^n itself must not overflow
    flat = real(0.5 * math.log(2) * (mantissa + 4))  # beyond it tanh rounds to 1

    def compiled(f: Any) -> Any:
        return njit(inline="never", fastmath={"contract"}, error_model="numpy")(f)

    def power_of_two(shifted: Any) -> Any:
        """2^n, built in the bits of a floating-point number."""

    @overload(power_of_two, strict=False)
    def _power_of_two(shifted: Any) -> Any:
        if isinstance(shifted, Vector):
            return lambda shifted: shifted_bits(shifted, offset, bits)
        return lambda shifted: integer(integer((real(shifted).view(integer) + offset) << bits)).view(real)

    @compiled
    def reduced(s: Any) -> tuple[Any, Any]:
        """e^r - 1 and 2^n of the argument reduction above."""
        shifted = s * per_log2 + rounder
        n = shifted - rounder
        r = (s - n * high) - n * low
        p = taylor[0] * r + taylor[1]
        for coefficient in taylor[2:]:
            p = p * r + coefficient
        return p * r, power_of_two(shifted)

    @compiled
    def exp(x: Any) -> Any:
        p, power = reduced(x)
        y = power + power * p
        y = zero if x < lowest else y
        return infinity if x > highest else y

    @compiled
    def tanh(x: Any) -> Any:
        x = at_most(x, -flat, -flat, x)
        x = at_most(flat, x, flat, x)
        p, power = reduced(two * x)
        u = power * p + (power - one)
        return u / (u + two)

    @compiled
    def sigmoid(x: Any) -> Any:
        x = at_most(x, lowest, lowest, x)
        x = at_most(-lowest, x, -lowest, x)
        p, power = reduced(-x)
        return one / (one + (power + power * p))

    return exp, tanh, sigmoid


_exp32, _tanh32, _sigmoid32 = _functions(np.float32, np.int32, 23, 127, 0.693359375, -2.1219444005469057e-4, 7)
_exp64, _tanh64, _sigmoid64 = _functions(np.float64, np.int64, 52, 1023, 0.6931471803691238, 1.9082149292705877e-10, 13)


def _single(x: Any) -> bool:
    return bool((x.dtype if isinstance(x, Vector) else x) == types.float32)


@overload(exp, strict=False)
def _exp(x: Any) -> Any:
    return (lambda x: _exp32(x)) if _single(x) else (lambda x: _exp64(x))


@overload(tanh, strict=False)
def _tanh(x: Any) -> Any:
    return (lambda x: _tanh32(x)) if _single(x) else (lambda x: _tanh64(x))


@overload(sigmoid, strict=False)
def _sigmoid(x: Any) -> Any:
    return (lambda x: _sigmoid32(x)) if _single(x) else (lambda x: _sigmoid64(x))
