"""Layer normalisation on a GPU: layer_norm.cu. One launch forward, one backward, and two more for the gradients of weight and bias.

float16 and bfloat16 are standardised in float32, and mean and r are float32 then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import NULL, function, wide
from minirnn.kernels.cuda.rows import threads

UNIT = "layer_norm/layer_norm.cu"
ROWS, LANES = 128, 8  # as in layer_norm.cu
BLOCK = 256


def forward(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x (S, D), D >= 1, weight (D,) or None (ones), bias (D,) or None (zeros) -> y (S, D), mean (S,), r (S,)"""
    xp = module_of(x)
    S, D = x.shape
    x, real = xp.ascontiguousarray(x), wide(x.dtype)
    y, mean, r = xp.empty((S, D), x.dtype), xp.empty(S, real), xp.empty(S, real)
    if S:
        arguments = (x, _or_null(xp, weight), _or_null(xp, bias), y, mean, r, np.int32(D), real(eps))
        function(xp, UNIT, "layer_norm_forward", x.dtype)((S,), (threads(D),), arguments)
    return y, mean, r


def backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """dy (S, D), x (S, D), weight (D,) or None, mean (S,) and r (S,) from `forward` -> dx (S, D), dweight (D,), dbias (D,)

    affine: whether dweight and dbias are wanted; without it they are None.
    """
    xp = module_of(x)
    S, D = x.shape
    dy, x = xp.ascontiguousarray(dy), xp.ascontiguousarray(x)
    dx = xp.empty((S, D), x.dtype)
    if S:
        arguments = (dy, x, _or_null(xp, weight), mean, r, dx, np.int32(D))
        function(xp, UNIT, "layer_norm_backward", x.dtype)((S,), (threads(D),), arguments)
    return (dx, *_columns(xp, dy, x, mean, r)) if affine else (dx, None, None)


def _or_null(xp: Any, parameter: Array | None) -> Any:
    return NULL if parameter is None else xp.ascontiguousarray(parameter)


def _columns(xp: Any, dy: Array, x: Array, mean: Array, r: Array) -> tuple[Array, Array]:
    """(6), (7): in two stages, so that many rows keep many blocks busy."""
    S, D = x.shape
    dweight, dbias = xp.zeros(D, x.dtype), xp.zeros(D, x.dtype)  # (D,)
    if S:
        P = -(-S // ROWS)
        parts = xp.empty((2, P, D), wide(x.dtype))
        function(xp, UNIT, "layer_norm_columns", x.dtype)((-(-D // 32), P), (32, LANES), (dy, x, mean, r, parts, np.int32(S), np.int32(D)))
        function(xp, UNIT, "layer_norm_fold", x.dtype)((-(-D // BLOCK),), (BLOCK,), (parts, dweight, dbias, np.int32(P), np.int32(D)))
    return dweight, dbias
