"""Dropout in one pass over x: the random words of several counters at a time live in registers. Equation numbers are numpy_.py's.

Threads share the elements; a mask depends on an element's place alone, so their number makes no difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.dropout.numpy_ import ROUNDS, M, W, threshold

OPERATIONS = 10  # per element, as `workers` counts them
M_0, M_1, W_0, W_1 = (int(constant) for constant in (*M, *W))
LOW = 0xFFFFFFFF


def apply(x: Array, p: float, key: int) -> Array:
    """x of any shape, float32 or float64; p in [0, 1), the probability of 0; key in [0, 2^64) -> y like x, in C order"""
    y = np.empty(x.shape, x.dtype)
    source, target, size = x.reshape(-1), y.reshape(-1), x.size
    q, scale = np.uint64(threshold(p)), x.dtype.type(1 / (1 - p))
    k_0, k_1 = np.uint64(key & LOW), np.uint64(key >> 32)
    workers.run(_apply, workers.groups(-(-size // 4), OPERATIONS * size), source, k_0, k_1, q, scale, target)
    return y


@compiled(inline="always")
def _words(b: Any, k_0: Any, k_1: Any) -> tuple[Any, Any, Any, Any]:
    """(1)"""
    low, word = np.uint64(LOW), np.uint64(32)
    c_0, c_1, c_2, c_3 = b & low, b >> word, np.uint64(0), np.uint64(0)
    for _ in range(ROUNDS):
        m_0, m_1 = np.uint64(M_0) * c_0, np.uint64(M_1) * c_2
        c_0, c_1, c_2, c_3 = (m_1 >> word) ^ c_1 ^ k_0, m_1 & low, (m_0 >> word) ^ c_3 ^ k_1, m_0 & low  # (4)
        k_0, k_1 = (k_0 + np.uint64(W_0)) & low, (k_1 + np.uint64(W_1)) & low  # (5)
    return c_0, c_1, c_2, c_3


@compiled(error_model="numpy")
def _apply(p: int, P: int, source: Array, k_0: Any, k_1: Any, q: Any, scale: float, target: Array) -> None:
    """Thread p's blocks of four elements."""
    blocks = (len(source) + 3) // 4
    first, last = p * blocks // P, (p + 1) * blocks // P
    x, y = source[4 * first : 4 * last], target[4 * first : 4 * last]
    zero = x.dtype.type(0)
    whole = len(x) // 4
    for j in range(whole):
        c_0, c_1, c_2, c_3 = _words(np.uint64(first + j), k_0, k_1)
        y[4 * j] = scale * x[4 * j] if c_0 >= q else zero  # (2), (3)
        y[4 * j + 1] = scale * x[4 * j + 1] if c_1 >= q else zero
        y[4 * j + 2] = scale * x[4 * j + 2] if c_2 >= q else zero
        y[4 * j + 3] = scale * x[4 * j + 3] if c_3 >= q else zero
    if 4 * whole < len(x):
        words = _words(np.uint64(first + whole), k_0, k_1)
        for e in range(4 * whole, len(x)):
            y[e] = scale * x[e] if words[e - 4 * whole] >= q else zero
