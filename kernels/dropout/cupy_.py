"""Dropout on a GPU: dropout.cu. One launch, nothing is stored of the mask."""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import function, wide
from minirnn.kernels.dropout.numpy_ import threshold

UNIT = "dropout/dropout.cu"
BLOCK = 256
EACH = 4  # elements of a thread: the words of one counter


def apply(x: Array, p: float, key: int) -> Array:
    """x of any shape, float32, float64, float16 or bfloat16; p in [0, 1); key in [0, 2^64) -> y like x, in C order"""
    xp = module_of(x)
    x = xp.ascontiguousarray(x)
    y = xp.empty(x.shape, x.dtype)
    if x.size:
        arguments = (x, y, np.int64(x.size), np.uint64(key), np.uint32(threshold(p)), wide(x.dtype)(1 / (1 - p)))
        function(xp, UNIT, "dropout_apply", x.dtype)((-(-x.size // (BLOCK * EACH)),), (BLOCK,), arguments)
    return y
