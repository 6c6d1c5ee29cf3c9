"""The sum of squares in blocks, which threads share; the blocks' sums are added in order and in float64, so no bit depends on the threads.

The library's dot product would do for one thread. But with several, its threads go on spinning for a while, and take the cores from the
kernels that come next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.addresses import address, carray, pointer
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

BLOCK = 1 << 13  # numbers that are summed in their own dtype
OPERATIONS = 10  # per number, as `workers` counts them: the traffic is the price


def total(arrays: Sequence[Array]) -> float:
    """Arrays of any shape, all float32 or all float64 -> the sum of their s"""
    flat = [x.ravel("K") for x in arrays if x.size]
    if not flat:
        return 0.0
    ends = np.cumsum([-(-x.size // BLOCK) for x in flat])
    table = np.array([(address(x), x.size, end) for x, end in zip(flat, ends, strict=True)])  # (K, 3)
    sums = np.empty(int(ends[-1]))
    workers.run(_squares, workers.groups(sums.size, OPERATIONS * BLOCK * sums.size), table, sums, flat[0][:0])
    return float(sums.sum())


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _squares(p: int, P: int, table: Array, sums: Array, like: Array) -> None:
    """Thread p's blocks, as if the arrays were one after the other."""
    first, last, begin = p * sums.size // P, (p + 1) * sums.size // P, 0
    for k in range(len(table)):
        size, end = table[k, 1], table[k, 2]
        x = carray(pointer(table[k, 0], like), size)
        for block in range(max(first, begin), min(last, end)):
            part = x[(block - begin) * BLOCK : min(size, (block - begin + 1) * BLOCK)]
            total = like.dtype.type(0)
            for j in range(len(part)):
                total += part[j] * part[j]  # (1)
            sums[block] = total
        begin = end
