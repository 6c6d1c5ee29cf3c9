"""The sum of squares in blocks, which threads share; the blocks' sums are added in order and in float64, so no bit depends on the threads.

The library's dot product would do for one thread. But with several, its threads go on spinning for a while, and take the cores from the
kernels that come next.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

BLOCK = 1 << 13  # numbers that are summed in their own dtype
OPERATIONS = 10  # per number, as `workers` counts them: the traffic is the price


def total(x: Array) -> float:
    """x of any shape, float32 or float64 -> s"""
    sums = np.empty(-(-x.size // BLOCK))
    workers.run(_squares, workers.groups(sums.size, OPERATIONS * x.size), x.ravel("K"), sums)
    return float(sums.sum())


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _squares(p: int, P: int, x: Array, sums: Array) -> None:
    for block in range(p * sums.size // P, (p + 1) * sums.size // P):
        part = x[block * BLOCK : (block + 1) * BLOCK]
        total = x.dtype.type(0)
        for j in range(len(part)):
            total += part[j] * part[j]  # (1)
        sums[block] = total
