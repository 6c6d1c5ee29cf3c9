"""The sum of an array's squares.

s = sum_j |x_j|^2                                                               (1)
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def total(x: Array) -> float:
    """x of any shape, real or complex -> s"""
    return float(np.vdot(x, x).real)  #                                             (1)
