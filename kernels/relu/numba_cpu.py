"""The rectifier fused: one pass over memory in either direction, in the order in which x lies there; threads share it. Equation numbers are
numpy_.py's.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

OPERATIONS = 50  # what an element costs, counted as `workers` does: the traffic is the price


def forward(x: Array) -> Array:
    """x of any shape, float32 or float64 -> y like x"""
    x = _dense(x)
    y = np.empty_like(x)
    workers.run(_forward, workers.groups(x.size, OPERATIONS * x.size), x.ravel("K"), y.ravel("K"))
    return y


def backward(dy: Array, x: Array) -> Array:
    """dy and x of one shape, float32 or float64 -> dx"""
    x = _dense(x)
    dx = np.empty_like(x)
    if dy.strides != x.strides:
        dx[...] = dy
        dy = dx
    workers.run(_backward, workers.groups(x.size, OPERATIONS * x.size), dy.ravel("K"), x.ravel("K"), dx.ravel("K"))
    return dx


def _dense(x: Array) -> Array:
    """x, or a copy of one whose elements do not fill a piece of memory."""
    return x if np.may_share_memory(x.ravel("K"), x) else np.ascontiguousarray(x)


@compiled(error_model="numpy")
def _forward(p: int, P: int, x: Array, y: Array) -> None:
    zero = x.dtype.type(0)
    own = slice(p * x.size // P, (p + 1) * x.size // P)
    x, y = x[own], y[own]
    for j in range(x.size):
        y[j] = zero if x[j] < zero else x[j]  # (1)


@compiled(error_model="numpy")
def _backward(p: int, P: int, dy: Array, x: Array, dx: Array) -> None:
    zero = x.dtype.type(0)
    own = slice(p * x.size // P, (p + 1) * x.size // P)
    dy, x, dx = dy[own], x[own], dx[own]
    for j in range(x.size):
        dx[j] = dy[j] if x[j] > zero else zero  # (2)
