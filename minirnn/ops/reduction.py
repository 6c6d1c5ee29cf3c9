"""Sums, means, extremes and normalisers over axes, and their opposite: broadcasting."""

from __future__ import annotations

import math

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.tensor import Axis, Tensor


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of non-negative numbers; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int) else axis
    for a in axes:
        if not -ndim <= a < ndim:
            raise ValueError(f"axis {a} is out of range for a tensor with {ndim} axes")
    return tuple(a % ndim for a in axes)


class BroadcastTo(Function):
    """y = x repeated to `shape`        dx = dy summed over the repeats"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return self.xp.broadcast_to(x, self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return sum_to(dy, self.inputs[0].shape)


class SumTo(Function):
    """y = x summed over the axes along which `shape` would be broadcast to x's        dx = dy repeated"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        lead = x.ndim - len(self.shape)
        stretched = [lead + k for k, n in enumerate(self.shape) if n == 1 and x.shape[lead + k] != 1]
        return x.sum((*range(lead), *stretched), keepdims=True).reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return broadcast_to(dy, self.inputs[0].shape)


class Sum(Function):
    """y = sum of x over `axes`        dx = dy repeated along them"""

    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.sum(self.axes, keepdims=True)

    def backward(self, dy: Tensor) -> Tensor:
        return broadcast_to(dy, self.inputs[0].shape)


class Max(Function):
    """y = max of x over `axes`        dx = dy at the maximum, in equal parts where several tie"""

    saves_output = True
    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.max(self.axes, keepdims=True)

    def backward(self, dy: Tensor) -> Tensor:
        winners = self.inputs[0].data == self.output.data
        return dy * Tensor((winners / winners.sum(self.axes, keepdims=True)).astype(dy.dtype))


class LogSumExp(Function):
    """y = ln sum e^x over `axes`        dx = dy e^(x - y)"""

    saves_output = True
    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        top = x.real.max(self.axes, keepdims=True, initial=-self.xp.inf)
        top = self.xp.where(self.xp.isfinite(top), top, 0).astype(top.dtype)  # rows of -inf give -inf, not NaN
        return self.xp.log(self.xp.exp(x - top).sum(self.axes, keepdims=True)) + top

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (self.inputs[0] - self.output).exp()


class Softmax(Function):
    """y = e^x / sum e^x along `axis`, over the elements where `mask` is true        dx = y (dy - sum(y dy))"""

    saves_output = True
    axis: int
    mask: Array | None

    def forward(self, x: Array) -> Array:
        allowed = True if self.mask is None else self.mask
        top = x.real.max(self.axis, keepdims=True, initial=-self.xp.inf, where=allowed)
        top = self.xp.where(self.xp.isfinite(top), top, 0).astype(top.dtype)
        y = self.xp.exp(x - top if self.mask is None else self.xp.where(allowed, x - top, -self.xp.inf))
        total = y.sum(self.axis, keepdims=True)
        return y / self.xp.where(total == 0, 1, total)  # a row with nothing allowed is all zeros

    def backward(self, dy: Tensor) -> Tensor:
        y = self.output
        return y * (dy - sum(y * dy, self.axis, keepdims=True))


class LogSoftmax(Function):
    """y = x - ln sum e^x along `axis`        dx = dy - e^y sum(dy)"""

    saves_output = True
    axis: int

    def forward(self, x: Array) -> Array:
        shifted = x - x.real.max(self.axis, keepdims=True)
        return shifted - self.xp.log(self.xp.exp(shifted).sum(self.axis, keepdims=True))

    def backward(self, dy: Tensor) -> Tensor:
        return dy - self.output.exp() * sum(dy, self.axis, keepdims=True)


def _reduce(operation: type[Function], x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = _axes(axis, x.ndim)
    y = operation.apply(x, axes=axes)
    return y if keepdims else y.reshape(tuple(n for k, n in enumerate(x.shape) if k not in axes))


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else BroadcastTo.apply(x, shape=shape)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else SumTo.apply(x, shape=shape)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis`: a number, a tuple, or None for all."""
    return _reduce(Sum, x, axis, keepdims)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return sum(x, axis, keepdims) / math.prod(x.shape[k] for k in _axes(axis, x.ndim))


def var(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean squared deviation (the population variance, divided by n)."""
    deviation = x - mean(x, axis, keepdims=True)
    return mean(deviation * deviation, axis, keepdims)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return _reduce(Max, x, axis, keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return -max(-x, axis, keepdims)


def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln sum e^x, without overflow."""
    return _reduce(LogSumExp, x, axis, keepdims)


def softmax(x: Tensor, axis: int = -1, mask: Array | None = None) -> Tensor:
    """Probabilities along `axis`; where `mask` (boolean, broadcast to x) is false they are zero, and so is a row with nothing allowed."""
    return Softmax.apply(x, axis=axis, mask=mask)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    return LogSoftmax.apply(x, axis=axis)
