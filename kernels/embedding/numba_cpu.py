"""The gradient of an embedding without sorting and without atomics: each thread owns some columns of dw, and walks over all of dy in order.

So every sum has one order, that of numpy_.py, whatever the number of threads. `np.zeros` is memory that the system clears when it is first
touched: the rows that no id names cost nothing.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

CACHE_LINE = 64  # bytes; two threads that write into one slow each other down
OPERATIONS = 20  # per number of dy, as `workers` counts them: the price is the traffic


def backward(dy: Array, ids: Array, rows: int) -> Array:
    """dy (S, D) float32 or float64, ids (S,) int in [0, rows), rows V -> dw (V, D), of which only the rows that were used are written"""
    S, D = dy.shape
    dw = np.zeros((rows, D), dy.dtype)  # (V, D)
    line = CACHE_LINE // dy.itemsize
    lines = -(-D // line)  # of one row
    workers.run(_backward, workers.groups(lines, OPERATIONS * S * D), dy, ids, dw, line)
    return dw


@compiled()
def _backward(p: int, P: int, dy: Array, ids: Array, dw: Array, line: int) -> None:
    """Thread p's columns, whole cache lines."""
    D = dw.shape[1]
    lines = (D + line - 1) // line
    first, last = p * lines // P * line, min(D, (p + 1) * lines // P * line)
    for s in range(len(ids)):
        source, target = dy[s, first:last], dw[ids[s], first:last]
        for d in range(len(source)):
            target[d] += source[d]  # (1)
