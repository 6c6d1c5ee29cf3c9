"""Sums, means, extremes and normalisers over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn.autograd import Function, is_recording
from minirnn.device import Array, array_module, beside, on_host, scalar, select
from minirnn.kernels import flops, registry
from minirnn.ops.broadcast import broadcast_to, fits
from minirnn.ops.elementwise import where
from minirnn.tensor import Axis, Tensor


class Sum(Function):
    """y = sum of x over `axes`        dx = dy repeated along them"""

    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.sum(self.axes, keepdims=True)

    def backward(self, dy: Tensor) -> Tensor:
        return broadcast_to(dy, self.inputs[0].shape)

    def flops(self) -> int:
        return self.inputs[0].size


class Max(Function):
    """y = max of x over `axes`        dx = dy at the maximum, in equal parts where several tie"""

    saves_output = True
    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.max(self.axes, keepdims=True)

    def backward(self, dy: Tensor) -> Tensor:
        winners = self.inputs[0].data == self.output.data
        parts = Tensor(winners.sum(self.axes, keepdims=True).astype(dy.dtype))
        return dy / parts * Tensor(winners.astype(dy.dtype))

    def flops(self) -> int:
        return self.inputs[0].size


class LogSumExp(Function):
    """y = ln sum e^x over `axes`        dx = dy softmax(x)"""

    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        top = _finite_max(self.xp, x, self.axes)
        with np.errstate(divide="ignore"):  # elements that are all -inf give -inf
            return self.xp.log(self.xp.exp(x - top).sum(self.axes, keepdims=True)) + top

    def backward(self, dy: Tensor) -> Tensor:
        return dy * Softmax.apply(self.inputs[0], axes=self.axes, mask=None)

    def flops(self) -> int:
        n = self.inputs[0].size
        return 4 * n + 2 * _groups(self.inputs[0], self.axes)  # the largest, less it, e^, sum; ln, and it again


class Softmax(Function):
    """y = e^x / sum e^x over `axes`, of the elements where `mask` is true        dx = y (dy - sum(y dy))"""

    saves_output = True
    axes: tuple[int, ...]
    mask: Array | None

    def forward(self, x: Array) -> Array:
        x = x if self.mask is None else select(self.mask, x, scalar(-math.inf, x.dtype, x))
        y = x - _finite_max(self.xp, x, self.axes)
        self.xp.exp(y, out=y)
        total = y.sum(self.axes, keepdims=True)
        y /= select(total != 0, total, 1)  # where nothing is allowed, all are zero
        return y

    def backward(self, dy: Tensor) -> Tensor:
        y = self.output
        return y * (dy - sum(y * dy, self.axes, keepdims=True))

    def flops(self) -> int:
        return 5 * self.inputs[0].size  # the largest, less it, e^, sum, over it


class LogSoftmax(Function):
    """y = x - ln sum e^x along `axis`        dx = dy - e^y sum(dy)"""

    saves_output = True
    axis: int

    def forward(self, x: Array) -> Array:
        y = x - _finite_max(self.xp, x, (self.axis,))
        y -= self.xp.log(self.xp.exp(y).sum(self.axis, keepdims=True))
        return y

    def backward(self, dy: Tensor) -> Tensor:
        return dy - self.output.exp() * sum(dy, self.axis, keepdims=True)

    def flops(self) -> int:
        return 5 * self.inputs[0].size + _groups(self.inputs[0], (self.axis,))  # the largest, less it, e^, sum, less its ln


class Standardize(Function):
    """y = (x - mean x) r, r = 1 / sqrt(var x + eps) over `axes`        dx = r (dy - mean dy - y mean(y dy)) - dr r^2 y / n

    r is the second output, because the derivative needs it; n elements are standardised together.
    """

    saves_output = True
    axes: tuple[int, ...]
    eps: float

    def forward(self, x: Array) -> tuple[Array, Array]:
        y = x - x.mean(self.axes, keepdims=True)
        r = 1 / self.xp.sqrt((y * y).mean(self.axes, keepdims=True) + self.eps)
        y *= r
        return y, r

    def backward(self, dy: Tensor | None, dr: Tensor | None) -> Tensor | None:
        y, r = self.outputs
        n = math.prod(y.shape[k] for k in self.axes)
        by_y = None if dy is None else r * (dy - mean(dy, self.axes, keepdims=True) - y * mean(y * dy, self.axes, keepdims=True))
        by_r = None if dr is None else dr * r * r * y / -n
        return by_y + by_r if by_y is not None and by_r is not None else by_y if by_r is None else by_r

    def flops(self) -> int:
        return flops.normalise(self.inputs[0].size, _groups(self.inputs[0], self.axes), 0)


class LayerNorm(Function):
    """y = n w + b, n = (x - mean) r, r = 1 / sqrt(var + eps) of each row        dx = r (g - mean g - n mean(g n)), g = dy w

    x (S, D), w (D,), b (D,); dw = sum over rows of dy n, db = sum over rows of dy. Without w and b, n itself. One kernel in either
    direction; where a gradient is differentiated again, it is made of primitive operations.
    """

    eps: float
    statistics: tuple[Array, Array]  # the mean and r of each row, (S,) each

    def forward(self, x: Array, w: Array | None = None, b: Array | None = None) -> Array:
        y, *statistics = registry.fused("layer_norm", x).forward(x, w, b, self.eps)
        self.statistics = statistics[0], statistics[1]
        return y

    def backward(self, dy: Tensor) -> Sequence[Tensor | None]:
        x, *affine = self.inputs
        if is_recording():
            return self._recorded(dy, x, affine)
        kernel, wanted = registry.fused("layer_norm", x.data), any(self.needs[1:])
        found = kernel.backward(dy.data, x.data, affine[0].data if affine else None, *self.statistics, affine=wanted)
        return [None if g is None else Tensor(g) for g in found[: len(self.inputs)]]

    def _recorded(self, dy: Tensor, x: Tensor, affine: Sequence[Tensor]) -> Sequence[Tensor | None]:
        n, r = Standardize.apply_all(x, axes=(1,), eps=self.eps)
        g = dy * affine[0] if affine else dy
        dx = r * (g - mean(g, 1, keepdims=True) - n * mean(g * n, 1, keepdims=True))
        return [dx, (dy * n).sum(0), dy.sum(0)] if affine else [dx]

    def flops(self) -> int:
        x = self.inputs[0]
        return flops.normalise(x.size, len(x), len(self.inputs) - 1)

    def backward_flops(self) -> int:
        x = self.inputs[0]
        return flops.normalise_gradient(x.size, len(x), len(self.inputs) > 1, any(self.needs[1:]))


class GroupNorm(Function):
    """y = n w + b, n = (x - mean) r, r = 1 / sqrt(var + eps) of each group of channels        dx = r (g - mean g - n mean(g n)), g = dy w

    x (N, C, *), w (C,), b (C,); dw = sum of dy n, db = sum of dy, over all but the channels. Without w and b, n itself. One kernel in
    either direction, on the CPU; where a gradient is differentiated again, it is made of primitive operations.
    """

    groups: int
    eps: float
    statistics: tuple[Array, Array]  # the mean and r of each group, (N, groups) each

    def forward(self, x: Array, w: Array | None = None, b: Array | None = None) -> Array:
        y, *statistics = registry.fused("group_norm", x).forward(x, self.groups, w, b, self.eps)
        self.statistics = statistics[0], statistics[1]
        return y

    def backward(self, dy: Tensor) -> Sequence[Tensor | None]:
        x, *affine = self.inputs
        if is_recording():
            return self._recorded(dy, x, affine)
        kernel, wanted = registry.fused("group_norm", x.data), any(self.needs[1:])
        found = kernel.backward(dy.data, x.data, affine[0].data if affine else None, *self.statistics, affine=wanted)
        return [None if g is None else Tensor(g) for g in found[: len(self.inputs)]]

    def _recorded(self, dy: Tensor, x: Tensor, affine: Sequence[Tensor]) -> Sequence[Tensor | None]:
        rows, others = (len(x), self.groups, math.prod(x.shape[1:]) // self.groups), (0, *range(2, x.ndim))
        n, r = Standardize.apply_all(x.reshape(rows), axes=(2,), eps=self.eps)  # (N, G, M), (N, G, 1)
        g = (dy * affine[0].reshape((-1, *[1] * (x.ndim - 2))) if affine else dy).reshape(rows)
        dx = (r * (g - mean(g, 2, keepdims=True) - n * mean(g * n, 2, keepdims=True))).reshape(x.shape)
        return [dx, (dy * n.reshape(x.shape)).sum(others), dy.sum(others)] if affine else [dx]

    def flops(self) -> int:
        x = self.inputs[0]
        return flops.normalise(x.size, len(x) * self.groups, len(self.inputs) - 1)

    def backward_flops(self) -> int:
        x = self.inputs[0]
        return flops.normalise_gradient(x.size, len(x) * self.groups, len(self.inputs) > 1, any(self.needs[1:]))


def _groups(x: Tensor, axes: tuple[int, ...]) -> int:
    """How many numbers are left of x by a reduction."""
    return math.prod(n for k, n in enumerate(x.shape) if k not in axes)


def _finite_max(xp: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """The largest real part over `axes`; 0 where it is not finite, or there is none, so that x less it is never inf - inf."""
    if not math.prod(x.shape[k] for k in axes):
        return xp.zeros(tuple(1 if k in axes else n for k, n in enumerate(x.shape)), x.real.dtype)
    top = x.real.max(axes, keepdims=True)
    return select(xp.isfinite(top), top, 0)


def _check_mask(name: str, x: Tensor, mask: Array) -> Array:
    """`mask` beside x. It is boolean: weights that were taken for one would silently mean something else."""
    if mask.dtype != bool or not fits(mask.shape, x.shape):
        raise ValueError(f"{name}: mask must be boolean, of a shape that broadcasts to x {x.shape}, got {mask.dtype} {mask.shape}")
    return beside(mask, x.data)


def _axes(name: str, x: Tensor, axis: Axis) -> tuple[int, ...]:
    """`axis` as a tuple of different numbers, counted from the front; None means all."""
    given = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    for a in given:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"{name}: axis {a} is out of range for x {x.shape}")
    axes = tuple(a % x.ndim for a in given)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: axis {given} names an axis of x {x.shape} twice")
    return axes


def _reduce(name: str, operation: type[Function], x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = _axes(name, x, axis)
    y = operation.apply(x, axes=axes)
    return y if keepdims else y.reshape(tuple(n for k, n in enumerate(x.shape) if k not in axes))


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False, *, mask: Array | None = None) -> Tensor:
    """Sum over `axis` (a number, a tuple, or None for all), of the elements where `mask` (boolean, broadcast to x) is true."""
    return _reduce("sum", Sum, x if mask is None else where(_check_mask("sum", x, mask), x, 0), axis, keepdims)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False, *, mask: Array | None = None) -> Tensor:
    """Mean over `axis` of the elements where `mask` (boolean, broadcast to x) is true; 0 where none is."""
    axes = _axes("mean", x, axis)
    if mask is None:
        count = math.prod(x.shape[k] for k in axes)
        if not count:
            raise ValueError(f"mean: there is nothing to average over axis {axis} of x {x.shape}")
        return sum(x, axes, keepdims) / count
    mask = _check_mask("mean", x, mask)
    total = sum(x, axes, keepdims, mask=mask)
    counts = array_module(x.data).broadcast_to(mask, x.shape).sum(axes, keepdims=keepdims)
    return total / Tensor(counts.clip(1).astype(x.dtype))


def var(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean squared deviation (the population variance, divided by n)."""
    deviation = x - mean(x, axis, keepdims=True)
    return mean(deviation * deviation, axis, keepdims)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest over `axis`; the gradient goes in equal parts to all that tie."""
    axes = _axes("max", x, axis)
    if not math.prod(x.shape[k] for k in axes):
        raise ValueError(f"max: there is nothing to choose from over axis {axis} of x {x.shape}")
    return _reduce("max", Max, x, axes, keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest over `axis`; the gradient goes in equal parts to all that tie."""
    return -max(-x, axis, keepdims)


def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln sum e^x, without overflow; -inf, with gradient zero, where every element is -inf."""
    return _reduce("logsumexp", LogSumExp, x, axis, keepdims)


def softmax(x: Tensor, axis: int = -1, mask: Array | None = None) -> Tensor:
    """Probabilities along `axis`; where `mask` (boolean, broadcast to x) is false they are zero, and so is a row with nothing allowed."""
    allowed = None if mask is None else _check_mask("softmax", x, mask)
    return Softmax.apply(x, axes=_axes("softmax", x, axis), mask=allowed)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """ln softmax(x), without overflow."""
    (axis,) = _axes("log_softmax", x, axis)
    return LogSoftmax.apply(x, axis=axis)


def layer_norm(
    x: Tensor, shape: int | tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = (x - mean x) / sqrt(var x + eps) weight + bias, over the last axes of x, whose lengths are `shape` (Ba et al. 2016).

    weight and bias have that shape, or are None.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    ahead = x.ndim - len(shape)
    if ahead < 0 or x.shape[ahead:] != shape or 0 in shape:
        raise ValueError(f"layer_norm: the last axes of x must be shape = {shape}, none of them 0, got x {x.shape}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ValueError(f"layer_norm: {name} must have the shape {shape} that is normalised, got {parameter.shape}")
    D = math.prod(shape)
    rows = x.reshape((math.prod(x.shape[:ahead]), D))
    if weight is None:
        y = LayerNorm.apply(rows, eps=eps).reshape(x.shape)
        return y if bias is None else y + bias
    bias = Tensor(array_module(x.data).zeros(shape, x.dtype)) if bias is None else bias
    return LayerNorm.apply(rows, weight.reshape((D,)), bias.reshape((D,)), eps=eps).reshape(x.shape)


def group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) weight + bias, over each of `groups` groups of channels of x (N, C, *) (Wu and He 2018).

    A group is C / groups channels with all that comes after. weight and bias are (C,), or None.
    """
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups or 0 in x.shape[1:]:
        raise ValueError(f"group_norm: x must be (N, C, ...), no axis but N 0, C divisible by groups={groups}, got x {x.shape}")
    C = x.shape[1]
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != (C,):
            raise ValueError(f"group_norm: {name} must be (C,) = ({C},) for x (N, C, ...) = {x.shape}, got {parameter.shape}")
    along = (C, *[1] * (x.ndim - 2))
    if on_host(x.data):
        if weight is None:
            y = GroupNorm.apply(x, groups=groups, eps=eps)
            return y if bias is None else y + bias.reshape(along)
        bias = Tensor(np.zeros(C, x.dtype)) if bias is None else bias
        return GroupNorm.apply(x, weight, bias, groups=groups, eps=eps)
    rows = x.reshape((len(x), groups, math.prod(x.shape[1:]) // groups))
    y = layer_norm(rows, rows.shape[2], eps=eps).reshape(x.shape)
    y = y if weight is None else y * weight.reshape(along)
    return y if bias is None else y + bias.reshape(along)
