"""Max pooling of images, forward and backward.

    y[n, c, p, q] = max over u, v of x[n, c, s p + u - a, r q + v - z]                                  (1)
    winners[n, c, p, q] = h W + w, where the first largest element of the window stands in x            (2)
    dx[n, c, winners[n, c, p, q]] += dy[n, c, p, q], in the order of p, q                               (3)

Outside x is -inf; (s, r) is the stride, (a, z) the padding, and a window is at least half inside. A NaN is larger than anything. Of a
window that sees nothing but -inf, some pixel near it wins.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array

Pair = tuple[int, int]


def forward(x: Array, size: Pair, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    """x (N, C, H, W), real or complex -> y (N, C, P, Q), winners (N, C, P, Q) int"""
    (N, C, H, W), (top, left) = x.shape, padding
    x_around = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=-np.inf) if any(padding) else x
    views = np.lib.stride_tricks.sliding_window_view(x_around, size, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    places = winners(np, views, (H, W), stride, padding, bool(np.isnan(x).any()))
    P, Q = places.shape[2:]
    y = np.take_along_axis(x.reshape(N, C, H * W), places.reshape(N, C, P * Q), axis=2)  # (1)
    return y.reshape(N, C, P, Q), places


def backward(dy: Array, winners: Array, image: Pair) -> Array:
    """dy (N, C, P, Q), winners (N, C, P, Q), image (H, W) -> dx (N, C, H, W)"""
    N, C, P, Q = dy.shape
    dx = np.zeros((N, C, image[0] * image[1]), dy.dtype)
    n, c = np.ogrid[:N, :C]
    np.add.at(dx, (n[..., None], c[..., None], winners.reshape(N, C, P * Q)), dy.reshape(N, C, P * Q))  #     (3)
    return dx.reshape(N, C, *image)


def winners(xp: Any, views: Array, image: Pair, stride: Pair, padding: Pair, unordered: bool) -> Array:
    """(2), from what each window sees, views (N, C, P, Q, U, V), with the array module xp; `unordered`: whether there may be a NaN."""
    (P, Q, U, V), (H, W) = views.shape[2:], image
    rivals = [views[..., u, v] for u in range(U) for v in range(V)]  # (N, C, P, Q) each
    best = reduce(xp.maximum, rivals)
    lost = xp.ones(best.shape, bool)  # all rivals so far
    first = xp.zeros(best.shape, np.int32)  # how many lost before the first that is as large as the best
    for rival in rivals[:-1]:
        lost &= rival != best
        if unordered:
            lost &= rival == rival
        first += lost
    row = stride[0] * xp.arange(P)[:, None] - padding[0] + first // V
    column = stride[1] * xp.arange(Q) - padding[1] + first % V
    return row.clip(0, H - 1) * W + column.clip(0, W - 1)  # outside only where all that the window sees is -inf
