"""Cross entropy fused: threads share the rows, and every pass but the first over a row finds it in cache. Equation numbers are numpy_.py's.

Forward reads `logits` once and writes two numbers per row; backward reads them once and writes `dlogits`. Nothing else is allocated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.pointwise import exp

OPERATIONS = 30  # per logit, as `workers` counts them
_BITS: dict[int, tuple[Any, Any, Any, Any]] = {  # by width: the dtypes, the place of the sign, the bits of the magnitude
    32: (np.float32, np.int32, np.int32(31), np.int32(2**31 - 1)),
    64: (np.float64, np.int64, np.int64(63), np.int64(2**63 - 1)),
}


def forward(logits: Array, targets: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """logits (S, V) float32 or float64, targets (S,) int in [0, V), label_smoothing in [0, 1) -> loss (S,), lse (S,)"""
    S, V = logits.shape
    loss, lse = np.empty(S, logits.dtype), np.empty(S, logits.dtype)
    on_target, on_all = _weights(logits, label_smoothing)
    workers.run(_forward, workers.groups(S, OPERATIONS * S * V), logits, targets, on_target, on_all, loss, lse)
    return loss, lse


def backward(logits: Array, targets: Array, lse: Array, dloss: Array, label_smoothing: float = 0.0) -> Array:
    """logits (S, V), targets (S,), lse (S,) from `forward`, dloss (S,) -> dlogits (S, V)"""
    S, V = logits.shape
    dlogits = np.empty((S, V), logits.dtype)
    on_target, on_all = _weights(logits, label_smoothing)
    P = workers.groups(S, OPERATIONS * S * V)
    workers.run(_backward, P, logits, targets, lse, dloss, on_target, on_all, dlogits)
    return dlogits


def _weights(logits: Array, label_smoothing: float) -> tuple[Array, Array]:
    """1 - e on the target and e / V on every class, in the dtype of the logits"""
    number = logits.dtype.type
    return number(1 - label_smoothing), number(label_smoothing / logits.shape[1])


def _order(x: float) -> int:
    """The bits of a float as an integer; integers compare as their floats do once the magnitude of the negative ones is flipped."""
    raise NotImplementedError("for Numba functions")


def _number(order: int) -> float:
    """The float of which `order` is the `_order`."""
    raise NotImplementedError("for Numba functions")


@overload(_order, strict=False)
def _order_of(x: Any) -> Any:
    real, integer, sign, magnitude = _BITS[x.bitwidth]

    def order(x: float) -> Any:
        bits = real(x).view(integer)
        return np.bitwise_xor(bits, np.bitwise_and(np.right_shift(bits, sign), magnitude))

    return order


@overload(_number, strict=False)
def _number_of(order: Any) -> Any:
    real, integer, sign, magnitude = _BITS[order.bitwidth]

    def number(order: int) -> Any:
        return integer(np.bitwise_xor(order, np.bitwise_and(np.right_shift(order, sign), magnitude))).view(real)

    return number


@compiled()
def _largest(row: Array) -> float:
    """max_k row_k, where a NaN counts as more than inf or, with its sign bit set, as less than -inf.

    A maximum of floats is not vectorised, because the place of a NaN would matter; one of integers is.
    """
    largest = _order(row[0])
    for k in range(1, len(row)):
        largest = max(largest, _order(row[k]))
    return _number(largest)


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _forward(p: int, P: int, logits: Array, targets: Array, on_target: float, on_all: float, loss: Array, lse: Array) -> None:
    S, V = logits.shape
    for s in range(p * S // P, (p + 1) * S // P):
        m = _largest(logits[s])  # (1)
        total = logits.dtype.type(0)
        for k in range(V):
            total += exp(logits[s, k] - m)
        log_total = np.log(total)
        value = log_total - on_target * (logits[s, targets[s]] - m)  # (3)
        if on_all > 0:
            shifted = logits.dtype.type(0)
            for k in range(V):
                shifted += logits[s, k] - m
            value -= on_all * shifted
        loss[s] = value
        lse[s] = m + log_total  # (2)


@compiled(error_model="numpy", fastmath={"contract"})
def _backward(
    p: int, P: int, logits: Array, targets: Array, lse: Array, dloss: Array, on_target: float, on_all: float, dlogits: Array
) -> None:
    S, V = logits.shape
    for s in range(p * S // P, (p + 1) * S // P):
        d, z = dloss[s], lse[s]
        if d == 0:
            dlogits[s] = 0
            continue
        for k in range(V):
            dlogits[s, k] = d * (exp(logits[s, k] - z) - on_all)  # (4)
        dlogits[s, targets[s]] -= d * on_target
