"""Group normalisation (Wu and He 2018, equations 1 to 7) with its weight and bias, line by line.

A group is D = C / G channels of one sample with all S places that come after: M = D S numbers.

    mean = sum x / M                                over a group                    (1)
    r    = 1 / sqrt(sum (x - mean)^2 / M + eps)                                     (2)
    n    = (x - mean) r                                                             (3)
    y    = n weight_c + bias_c                                                      (4)

Backward, with the sums over places A_c = sum dy and B_c = sum dy n of each sample and channel:

    dx = r (dy weight_c - sum_c' weight_c' A_c' / M - n sum_c' weight_c' B_c' / M)  c' the channels of the group         (5)
    dweight_c = sum over samples of B_c                                             (6)
    dbias_c   = sum over samples of A_c                                             (7)

A NaN or an infinity stays in its group, but for dweight and dbias.
"""

from __future__ import annotations

import math

import numpy as np

from minirnn.kernels.contract import Array


def forward(x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (N, C, *) real or complex, weight (C,) or None (ones), bias (C,) or None (zeros) -> y (N, C, *), mean (N, G), r (N, G)"""
    rows = x.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)  # (N, G, M)
    mean = rows.mean(axis=2)  #                                                     (1)
    y = rows - mean[..., None]
    r = 1 / np.sqrt((y * y).mean(axis=2) + eps)  #                                  (2)
    y = (y * r[..., None]).reshape(x.shape)  #                                      (3)
    if weight is not None:
        y *= _along(weight, x)  #                                                   (4)
    if bias is not None:
        y += _along(bias, x)
    return y, mean, r


def backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """dy (N, C, *), x (N, C, *), weight (C,) or None, mean (N, G) and r (N, G) from `forward` -> dx (N, C, *), dweight (C,), dbias (C,)

    affine: whether dweight and dbias are wanted; without it they are None.
    """
    N, G = mean.shape
    rows = (N, G, math.prod(x.shape[1:]) // G)
    n = (x.reshape(rows) - mean[..., None]) * r[..., None]  # (N, G, M)             (3)
    g = (dy if weight is None else dy * _along(weight, x)).reshape(rows)
    along = (g * n).mean(axis=2, keepdims=True)
    dx = (r[..., None] * (g - g.mean(axis=2, keepdims=True) - n * along)).reshape(x.shape)  #             (5)
    if not affine:
        return dx, None, None
    others = (0, *range(2, x.ndim))
    return dx, (dy * n.reshape(x.shape)).sum(axis=others), dy.sum(axis=others)  #   (6), (7)


def _along(parameter: Array, x: Array) -> Array:
    """A number for each channel, so that it broadcasts to x."""
    return parameter.reshape(-1, *[1] * (x.ndim - 2))
