"""The gradient of an embedding without sorting and without atomics: each thread owns some columns of dw, and walks over all of dy in order.

So every sum has one order, that of numpy_.py, whatever the number of threads. `np.zeros` is memory that the system clears when it is first
touched: the rows that no id names cost nothing.
"""

from __future__ import annotations

import numba
import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.threads import share_cores

share_cores()

CACHE_LINE = 64  # bytes; two threads that write into one slow each other down


def backward(dy: Array, ids: Array, rows: int) -> Array:
    """dy (S, D) float32 or float64, ids (S,) int in [0, rows), rows V -> dw (V, D), of which only the rows that were used are written"""
    S, D = dy.shape
    dw = np.zeros((rows, D), dy.dtype)  # (V, D)
    if S and D:
        lines = -(-D * dy.itemsize // CACHE_LINE)  # of one row
        _backward(dy, ids, dw, min(numba.get_num_threads(), lines), CACHE_LINE // dy.itemsize)
    return dw


@numba.njit(parallel=True, cache=True)
def _backward(dy: Array, ids: Array, dw: Array, slices: int, line: int) -> None:
    S, D = dy.shape
    lines = (D + line - 1) // line
    for part in numba.prange(slices):
        first, last = part * lines // slices * line, min(D, (part + 1) * lines // slices * line)
        for s in range(S):
            source, target = dy[s, first:last], dw[ids[s], first:last]
            for d in range(len(source)):
                target[d] += source[d]  # (1)
