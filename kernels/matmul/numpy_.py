"""out = a b, by NumPy's library: the reference, and the fallback.

out_mn = sum over k of a_mk b_kn  (+ bias_n, or + what out_mn was)              (1)
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def multiply(
    a: Array, b: Array, bias: Array | None = None, out: Array | None = None, accumulate: bool = False, sums: Array | None = None
) -> Array:
    """a (M, K), b (K, N), bias (N,) or None -> (M, N): `out`, or a new array; with `accumulate`, what `out` was is added

    `sums` (M,), if there are any, get the sums of the rows of a.
    """
    if sums is not None:
        a.sum(1, out=sums)
    if out is None:
        out = np.matmul(a, b)
    elif accumulate:
        out += np.matmul(a, b)
    else:
        np.matmul(a, b, out=out)
    if bias is not None:
        out += bias
    return out  #                                                                  (1)
