"""The gradient of y_s = w[ids_s]: every row of w receives the sum of the dy that it was looked up for, in the order of s.

dw_v = sum over s with ids_s = v of dy_s                                        (1)
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def backward(dy: Array, ids: Array, rows: int) -> Array:
    """dy (S, D), ids (S,) int in [0, rows), rows V -> dw (V, D), of which only the rows that were used are written"""
    dw = np.zeros((rows, dy.shape[1]), dy.dtype)  # (V, D)
    np.add.at(dw, ids, dy)  #                                                       (1)
    return dw
