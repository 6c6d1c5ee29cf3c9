"""The sum of the squares of some arrays.

s = sum_j |x_j|^2                                                               (1)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minirnn.kernels.contract import Array


def total(arrays: Sequence[Array]) -> float:
    """Arrays of any shape, real or complex -> the sum of their s"""
    return sum(float(np.vdot(x, x).real) for x in arrays)  #                        (1)
