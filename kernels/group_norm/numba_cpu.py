"""Group normalisation fused: an image that fits into the cache is read from memory once in either direction. Equation numbers are
numpy_.py's.

The channels of a place lie side by side, as the fused convolution leaves them, so every loop runs over channels, with a number for each.
Threads share the images; the parts of dweight and dbias are added image by image, so every sum has one order whatever their number.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

BLOCK = 64  # places that are summed before their sum is added to the others: rounding grows with the blocks, not the places
OPERATIONS = 50  # per number of x, as `workers` counts them: the traffic is the price


def forward(x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (N, C, *) float32 or float64, weight (C,) or None (ones), bias (C,) or None (zeros) -> y (N, C, *), mean (N, G), r (N, G)"""
    N, C = x.shape[:2]
    rows = _channels_last(x)  # (N, S, C)
    y = np.empty_like(rows)
    mean, r = np.empty((N, groups), x.dtype), np.empty((N, groups), x.dtype)
    weight = np.ones(C, x.dtype) if weight is None else weight
    bias = np.zeros(C, x.dtype) if bias is None else bias
    workers.run(_forward, workers.groups(N, OPERATIONS * x.size), rows, weight, bias, x.dtype.type(eps), y, mean, r)
    return _channels_second(y, x), mean, r


def backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """dy (N, C, *), x (N, C, *), weight (C,) or None, mean (N, G) and r (N, G) from `forward` -> dx (N, C, *), dweight (C,), dbias (C,)

    affine: whether dweight and dbias are wanted; without it they are None.
    """
    N, C = x.shape[:2]
    rows = _channels_last(x)  # (N, S, C)
    dx, parts = np.empty_like(rows), np.zeros((N, 2, C), x.dtype)
    weight = np.ones(C, x.dtype) if weight is None else weight
    workers.run(_backward, workers.groups(N, OPERATIONS * x.size), _channels_last(dy), rows, weight, mean, r, dx, parts)
    dbias, dweight = parts.sum(axis=0)
    return (_channels_second(dx, x), dweight, dbias) if affine else (_channels_second(dx, x), None, None)


def _channels_last(x: Array) -> Array:
    """x (N, C, *) as (N, S, C)"""
    N, C, *places = x.shape
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(N, math.prod(places), C)


def _channels_second(rows: Array, like: Array) -> Array:
    """rows (N, S, C) as (N, C, *)"""
    N, C, *places = like.shape
    return np.moveaxis(rows.reshape(N, *places, C), -1, 1)


@njit(error_model="numpy")
def _spread(values: Array, of_groups: Array) -> None:
    """Each group's mean of a number for each channel, given to its channels."""
    C, G = len(values), len(of_groups)
    D = C // G
    for g in range(G):
        total = values.dtype.type(0)
        for c in range(g * D, (g + 1) * D):
            total += values[c]
        of_groups[g] = total / values.dtype.type(D)
        values[g * D : (g + 1) * D] = of_groups[g]


@compiled(error_model="numpy", fastmath={"contract"})
def _forward(p: int, P: int, x: Array, weight: Array, bias: Array, eps: float, y: Array, mean: Array, r: Array) -> None:
    N, S, C = x.shape
    one, places = x.dtype.type(1), x.dtype.type(S)
    centre, inverse, part = np.empty(C, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    for n in range(p * N // P, (p + 1) * N // P):
        centre[:] = 0
        for first in range(0, S, BLOCK):
            part[:] = 0
            for s in range(first, min(S, first + BLOCK)):
                pixel = x[n, s]
                for c in range(C):
                    part[c] += pixel[c]
            for c in range(C):
                centre[c] += part[c]
        for c in range(C):
            centre[c] /= places
        _spread(centre, mean[n])  # (1)
        inverse[:] = 0
        for first in range(0, S, BLOCK):
            part[:] = 0
            for s in range(first, min(S, first + BLOCK)):
                pixel = x[n, s]
                for c in range(C):
                    part[c] += (pixel[c] - centre[c]) * (pixel[c] - centre[c])
            for c in range(C):
                inverse[c] += part[c]
        for c in range(C):
            inverse[c] /= places
        _spread(inverse, r[n])
        for c in range(C):
            inverse[c] = one / np.sqrt(inverse[c] + eps)  # (2)
        for g in range(r.shape[1]):
            r[n, g] = one / np.sqrt(r[n, g] + eps)
        for s in range(S):
            pixel, result = x[n, s], y[n, s]
            for c in range(C):
                result[c] = (pixel[c] - centre[c]) * inverse[c] * weight[c] + bias[c]  # (3), (4)


@compiled(error_model="numpy", fastmath={"contract"})
def _backward(p: int, P: int, dy: Array, x: Array, weight: Array, mean: Array, r: Array, dx: Array, parts: Array) -> None:
    N, S, C = x.shape
    D, places = C // mean.shape[1], x.dtype.type(S)
    centre, inverse = np.empty(C, x.dtype), np.empty(C, x.dtype)
    flat, along, part = np.empty(C, x.dtype), np.empty(C, x.dtype), np.empty((2, C), x.dtype)
    ignored = np.empty(mean.shape[1], x.dtype)
    for n in range(p * N // P, (p + 1) * N // P):
        for c in range(C):
            centre[c], inverse[c] = mean[n, c // D], r[n, c // D]
        sums, products = parts[n, 0], parts[n, 1]  # A, B
        for first in range(0, S, BLOCK):
            part[:] = 0
            for s in range(first, min(S, first + BLOCK)):
                pixel, slope = x[n, s], dy[n, s]
                for c in range(C):
                    part[0, c] += slope[c]
                    part[1, c] += slope[c] * ((pixel[c] - centre[c]) * inverse[c])
            for c in range(C):
                sums[c] += part[0, c]
                products[c] += part[1, c]
        for c in range(C):
            flat[c], along[c] = weight[c] * sums[c] / places, weight[c] * products[c] / places
        _spread(flat, ignored)
        _spread(along, ignored)
        for s in range(S):
            pixel, slope, result = x[n, s], dy[n, s], dx[n, s]
            for c in range(C):
                result[c] = inverse[c] * (slope[c] * weight[c] - flat[c] - (pixel[c] - centre[c]) * inverse[c] * along[c])  # (5)
