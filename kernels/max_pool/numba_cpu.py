"""Max pooling fused: all channels of a place at once, one after the other in memory; threads share the images. Equation numbers are
numpy_.py's.

y and dx have their channels last in memory, as the fused convolution's results: seen as (N, C, P, Q) they are transposed, not copied.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.max_pool.numpy_ import Pair

OPERATIONS = 10  # per element of a window, as `workers` counts them


def forward(x: Array, size: Pair, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    """x (N, C, H, W) float32 or float64 -> y (N, C, P, Q), winners (N, C, P, Q) int32"""
    N, C, H, W = x.shape
    P, Q = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip((H, W), size, stride, padding, strict=True))
    y, winners = np.empty((N, P, Q, C), x.dtype), np.empty((N, P, Q, C), np.int32)
    threads = workers.groups(N, OPERATIONS * y.size * size[0] * size[1])
    workers.run(_forward, threads, _channels_last(x), *size, *stride, *padding, y, winners)
    return y.transpose(0, 3, 1, 2), winners.transpose(0, 3, 1, 2)


def backward(dy: Array, winners: Array, image: Pair) -> Array:
    """dy (N, C, P, Q), winners (N, C, P, Q) from `forward`, image (H, W) -> dx (N, C, H, W)"""
    (N, C, P, Q), (H, W) = dy.shape, image
    dx = np.zeros((N, H * W, C), dy.dtype)
    rows = (_channels_last(a).reshape(N, P * Q, C) for a in (dy, winners))
    workers.run(_backward, workers.groups(N, OPERATIONS * (dx.size + dy.size)), *rows, dx)
    return dx.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def _channels_last(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@compiled(error_model="numpy")
def _forward(p: int, P: int, x: Array, U: int, V: int, s: int, r: int, top: int, left: int, y: Array, winners: Array) -> None:
    N, H, W, C = x.shape
    _, rows, columns, _ = y.shape
    for n in range(p * N // P, (p + 1) * N // P):
        for row in range(rows):
            for column in range(columns):
                best, winner = y[n, row, column], winners[n, row, column]  # (C,)
                h_0, h_1 = max(0, s * row - top), min(H, s * row - top + U)
                w_0, w_1 = max(0, r * column - left), min(W, r * column - left + V)
                best[:] = x[n, h_0, w_0]
                winner[:] = h_0 * W + w_0
                for h in range(h_0, h_1):
                    for w in range(w_0, w_1):
                        rival = x[n, h, w]
                        for c in range(C):  # (1), (2): a NaN wins over a number, and nothing over a NaN
                            wins = (rival[c] > best[c]) | ((rival[c] != rival[c]) & (best[c] == best[c]))
                            best[c] = rival[c] if wins else best[c]
                            winner[c] = h * W + w if wins else winner[c]


@compiled(error_model="numpy")
def _backward(p: int, P: int, dy: Array, winners: Array, dx: Array) -> None:
    N, places, C = dy.shape
    for n in range(p * N // P, (p + 1) * N // P):
        for place in range(places):
            for c in range(C):
                dx[n, winners[n, place, c], c] += dy[n, place, c]  # (3)
