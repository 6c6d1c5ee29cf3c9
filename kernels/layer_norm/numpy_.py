"""Layer normalisation (Ba et al. 2016, section 3) of every row of x, with its weight and bias, line by line.

    mean = sum_j x_j / D                                                            (1)
    r    = 1 / sqrt(sum_j (x_j - mean)^2 / D + eps)                                 (2)
    n_j  = (x_j - mean) r                           the row, standardised           (3)
    y_j  = n_j weight_j + bias_j                                                    (4)

Backward, g_j = dy_j weight_j, and the gradient of n through mean and r takes from g what lies along (1, .., 1) and along n:

    dx_j = r (g_j - sum_k g_k / D - n_j sum_k g_k n_k / D)                          (5)
    dweight_j = sum over rows of dy_j n_j                                           (6)
    dbias_j   = sum over rows of dy_j                                               (7)

x, which the caller has anyway, and two numbers per row are all that the backward pass reads. A NaN or an infinity stays in its row, but for
dweight and dbias.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def forward(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (S, D) real or complex, D >= 1, weight (D,) or None (ones), bias (D,) or None (zeros) -> y (S, D), mean (S,), r (S,)"""
    mean = x.mean(axis=1)  # (S,)                                                   (1)
    y = x - mean[:, None]  # (S, D)
    r = 1 / np.sqrt((y * y).mean(axis=1) + eps)  # (S,)                             (2)
    y *= r[:, None]  #                                                              (3)
    if weight is not None:
        y *= weight  #                                                              (4)
    if bias is not None:
        y += bias
    return y, mean, r


def backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """dy (S, D), x (S, D), weight (D,) or None, mean (S,) and r (S,) from `forward` -> dx (S, D), dweight (D,), dbias (D,)

    affine: whether dweight and dbias are wanted; without it they are None.
    """
    n = (x - mean[:, None]) * r[:, None]  # (S, D)                                  (3)
    g = dy if weight is None else dy * weight  # (S, D)
    along = (g * n).mean(axis=1, keepdims=True)  # (S, 1)
    dx = r[:, None] * (g - g.mean(axis=1, keepdims=True) - n * along)  # (S, D)     (5)
    if not affine:
        return dx, None, None
    return dx, (dy * n).sum(axis=0), dy.sum(axis=0)  #                              (6), (7)
