"""Matrix products."""

from __future__ import annotations

from typing import Any

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.ops.elementwise import pair
from minirnn.ops.reduction import sum_to
from minirnn.ops.shape import expand_dims, reshape, swapaxes
from minirnn.tensor import Tensor


class MatMul(Function):
    """y = a b, over broadcast leading axes        da = dy b^T    db = a^T dy"""

    def forward(self, a: Array, b: Array) -> Array:
        return a @ b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.inputs
        return (
            sum_to(dy @ swapaxes(b, -1, -2), a.shape) if self.needs[0] else None,
            sum_to(swapaxes(a, -1, -2) @ dy, b.shape) if self.needs[1] else None,
        )


class Linear(Function):
    """y = x w^T + b        dx = dy w    dw = dy^T x    db = sum over rows of dy

    x (S, D), w (H, D), b (H,): one product over all rows.
    """

    def forward(self, x: Array, w: Array, b: Array) -> Array:
        y = x @ w.T
        y += b
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, w, _ = self.inputs
        return (
            dy @ w if self.needs[0] else None,
            dy.T @ x if self.needs[1] else None,
            dy.sum(0) if self.needs[2] else None,
        )


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product over the last two axes; leading axes broadcast, 1-D operands count as a row and a column."""
    a, b = pair(a, b)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: inner axes differ: a (..., n, k) = {a.shape}, b (..., k, m) = {b.shape}")
    row, column = a.ndim == 1, b.ndim == 1
    y = MatMul.apply(expand_dims(a, 0) if row else a, expand_dims(b, 1) if column else b)
    if column:
        y = reshape(y, y.shape[:-1])
    return reshape(y, y.shape[:-2] + y.shape[-1 - column + 1 :]) if row and not column else reshape(y, y.shape[:-1]) if row else y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x w^T + b over the last axis of x (..., D), with weight (H, D) and bias (H,)."""
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x has {x.shape[-1]} features in its last axis, the weight (H, D) = {weight.shape} takes {weight.shape[1]}"
        )
    rows = reshape(x, (-1, x.shape[-1]))
    y = MatMul.apply(rows, weight.T) if bias is None else Linear.apply(rows, weight, bias)
    return reshape(y, (*x.shape[:-1], weight.shape[0]))
