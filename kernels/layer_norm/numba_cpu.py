"""Layer normalisation fused: every pass over a row but the first finds it in cache, nothing is allocated. Equation numbers are numpy_.py's.

Threads share portions of ROWS rows. Each portion has its own part of dweight and dbias, and the parts are added in order, so every sum has
one order whatever the number of threads.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

ROWS = 64  # of a portion
OPERATIONS = 10  # per number of x, as `workers` counts them


def forward(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (S, D) float32 or float64, D >= 1, weight (D,) or None (ones), bias (D,) or None (zeros) -> y (S, D), mean (S,), r (S,)"""
    S, D = x.shape
    x = np.ascontiguousarray(x)
    y, mean, r = np.empty((S, D), x.dtype), np.empty(S, x.dtype), np.empty(S, x.dtype)
    weight = np.ones(D, x.dtype) if weight is None else weight
    bias = np.zeros(D, x.dtype) if bias is None else bias
    workers.run(_forward, workers.groups(S, OPERATIONS * x.size), x, weight, bias, x.dtype.type(eps), y, mean, r)
    return y, mean, r


def backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """dy (S, D), x (S, D), weight (D,) or None, mean (S,) and r (S,) from `forward` -> dx (S, D), dweight (D,), dbias (D,)

    affine: whether dweight and dbias are wanted; without it they are None.
    """
    S, D = x.shape
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    dx = np.empty((S, D), x.dtype)
    weight = np.ones(D, x.dtype) if weight is None else weight
    portions = -(-S // ROWS)
    parts = np.zeros((portions, 2, D if affine else 0), x.dtype)
    workers.run(_portions, workers.groups(portions, 2 * OPERATIONS * x.size), dy, x, weight, mean, r, dx, parts)
    return (dx, *parts.sum(axis=0)) if affine else (dx, None, None)


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _forward(p: int, P: int, x: Array, weight: Array, bias: Array, eps: float, y: Array, mean: Array, r: Array) -> None:
    S, D = x.shape
    one, n = x.dtype.type(1), x.dtype.type(D)
    for s in range(p * S // P, (p + 1) * S // P):
        total = x.dtype.type(0)
        for j in range(D):
            total += x[s, j]
        centre = total / n  # (1)
        squares = x.dtype.type(0)
        for j in range(D):
            squares += (x[s, j] - centre) * (x[s, j] - centre)
        inverse = one / np.sqrt(squares / n + eps)  # (2)
        for j in range(D):
            y[s, j] = (x[s, j] - centre) * inverse * weight[j] + bias[j]  # (3), (4)
        mean[s], r[s] = centre, inverse


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _backward(dy: Array, x: Array, weight: Array, mean: Array, r: Array, dx: Array) -> None:
    S, D = x.shape
    n = x.dtype.type(D)
    for s in range(S):
        centre, inverse = mean[s], r[s]
        flat, along = x.dtype.type(0), x.dtype.type(0)
        for j in range(D):
            g = dy[s, j] * weight[j]
            flat += g
            along += g * ((x[s, j] - centre) * inverse)
        flat, along = flat / n, along / n
        for j in range(D):
            dx[s, j] = inverse * (dy[s, j] * weight[j] - flat - (x[s, j] - centre) * inverse * along)  # (5)


@compiled(error_model="numpy", fastmath={"contract"})
def _columns(dy: Array, x: Array, mean: Array, r: Array, part: Array) -> None:
    S, D = x.shape
    for s in range(S):
        for j in range(D):
            part[0, j] += dy[s, j] * ((x[s, j] - mean[s]) * r[s])  # (6)
            part[1, j] += dy[s, j]  # (7)


@compiled(error_model="numpy")
def _portions(p: int, P: int, dy: Array, x: Array, weight: Array, mean: Array, r: Array, dx: Array, parts: Array) -> None:
    """Thread p's portions; parts (portions, 2, D), or (portions, 2, 0) where they are not wanted."""
    portions = len(parts)
    for portion in range(p * portions // P, (p + 1) * portions // P):
        rows = slice(portion * ROWS, (portion + 1) * ROWS)
        _backward(dy[rows], x[rows], weight, mean[rows], r[rows], dx[rows])
        if parts.shape[2]:
            _columns(dy[rows], x[rows], mean[rows], r[rows], parts[portion])
