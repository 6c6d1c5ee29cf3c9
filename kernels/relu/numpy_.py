"""The rectifier, element by element, and its gradient.

    y = max(x, 0)                                                                   (1)
    dx = dy where x > 0, 0 elsewhere                                                (2)

A NaN in x stays one in y, and has no gradient. The results lie in memory as x does, where x is dense.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def forward(x: Array) -> Array:
    """x of any shape, real -> y like x"""
    return np.maximum(x, 0)  #                                                      (1)


def backward(dy: Array, x: Array) -> Array:
    """dy and x of one shape -> dx"""
    return dy * (x > 0).astype(dy.dtype)  #                                         (2)
