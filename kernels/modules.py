"""Which array module an array belongs to, for kernels that are made of array operations and run on every device."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array

STAND_IN = "minirnn.kernels.emulator.stand_in"


def array_module(array: Array) -> Any:
    """`numpy`, `cupy`, or the emulator's stand-in for it. Neither of the last two is imported: an array of theirs shows that it was."""
    if isinstance(array, np.ndarray):
        return np
    return sys.modules["cupy" if device_kind(array) == "cuda" else STAND_IN]


def device_kind(array: Array) -> str:
    """ "cpu", "cuda" or "emulated": where an array lives."""
    if isinstance(array, np.ndarray):
        return "cpu"
    stand_in = sys.modules.get(STAND_IN)
    return "emulated" if stand_in is not None and isinstance(array, stand_in.ndarray) else "cuda"


def cholesky(a: Array) -> Array:
    """The lower triangular L (..., n, n) with L L^T = a, for a symmetric and positive definite.

    Where a is not, NumPy raises LinAlgError. CuPy does not look, since the host would have to wait, and leaves an unfinished factor: there
    the whole matrix becomes NaN. Told apart by the residual: rounding, in the factor and in its product, leaves
    |L L^T - a| <= 2 (n + 1) eps sqrt(a_ii a_jj) (Higham 2002, theorem 10.3, and Cauchy and Schwarz).
    """
    xp = array_module(a)
    L = xp.linalg.cholesky(a)
    if xp is np:
        return L
    n = a.shape[-1]
    scale = xp.sqrt(a.diagonal(0, -2, -1))  # (..., n)
    lower = xp.tril(xp.ones((n, n), a.dtype))  # only a's lower triangle is read
    residual = abs(L @ L.swapaxes(-1, -2) - a) * lower
    near = residual <= 2 * (n + 1) * np.finfo(a.dtype).eps * (scale[..., :, None] * scale[..., None, :])
    return xp.where(near.all((-2, -1))[..., None, None], L, xp.nan)
