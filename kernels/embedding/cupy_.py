"""The gradient of an embedding on a GPU: a stable sort of the ids, and embedding.cu. The order of every sum is that of numpy_.py.

Nothing of it waits for the device: the number of different ids is never asked for.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import function

UNIT = "embedding/embedding.cu"
BLOCK = 256


def backward(dy: Array, ids: Array, rows: int) -> Array:
    """dy (S, D), ids (S,) int in [0, rows), rows V -> dw (V, D), of which only the rows that were used are written"""
    xp = module_of(dy)
    S, D = dy.shape
    dw = xp.zeros((rows, D), dy.dtype)  # (V, D)
    if dy.size:
        ids = ids.astype(np.int32)  # (S,)
        places = xp.argsort(ids, kind="stable")  # (S,) int64
        block = min(BLOCK, 32 * -(-D // 32))
        arguments = (xp.ascontiguousarray(dy), places, ids[places], dw, np.int32(S), np.int32(D))
        function(xp, UNIT, "embedding_backward", dy.dtype)((S, -(-D // block)), (block,), arguments)
    return dw
