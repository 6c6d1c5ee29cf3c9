"""Cross entropy on a GPU: cross_entropy.cu, one launch forward and one backward, nothing of the size of the logits but `dlogits`.

float16 and bfloat16 are computed in float32, and lse is float32 then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import function, wide
from minirnn.kernels.cuda.rows import threads

UNIT = "cross_entropy/cross_entropy.cu"


def forward(logits: Array, targets: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """logits (S, V) float32, float64, float16 or bfloat16, targets (S,) int in [0, V), label_smoothing in [0, 1) -> loss (S,), lse (S,)"""
    xp = module_of(logits)
    S, V = logits.shape
    loss, lse = xp.empty(S, logits.dtype), xp.empty(S, wide(logits.dtype))
    if S:
        arguments = (*_read(xp, logits, targets), loss, lse, *_weights(logits, label_smoothing))
        function(xp, UNIT, "cross_entropy_forward", logits.dtype)((S,), (threads(V),), arguments)
    return loss, lse


def backward(logits: Array, targets: Array, lse: Array, dloss: Array, label_smoothing: float = 0.0) -> Array:
    """logits (S, V), targets (S,), lse (S,) from `forward`, dloss (S,) -> dlogits (S, V)"""
    xp = module_of(logits)
    S, V = logits.shape
    dlogits = xp.empty((S, V), logits.dtype)
    if S:
        arguments = (*_read(xp, logits, targets), lse, xp.ascontiguousarray(dloss), dlogits, *_weights(logits, label_smoothing))
        function(xp, UNIT, "cross_entropy_backward", logits.dtype)((S,), (threads(V),), arguments)
    return dlogits


def _read(xp: Any, logits: Array, targets: Array) -> tuple[Array, Array]:
    return xp.ascontiguousarray(logits), xp.ascontiguousarray(targets, np.int64)


def _weights(logits: Array, label_smoothing: float) -> tuple[Any, Any, Any]:
    """V, and 1 - e on the target and e / V on every class"""
    V, real = logits.shape[1], wide(logits.dtype)
    return np.int32(V), real(1 - label_smoothing), real(label_smoothing / V)
