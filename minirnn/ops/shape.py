"""The same numbers in another arrangement."""

from __future__ import annotations

from collections.abc import Sequence

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.tensor import Tensor


class Reshape(Function):
    """y = x in another shape        dx = dy in x's"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return reshape(dy, self.inputs[0].shape)


class Transpose(Function):
    """y = x with its axes in the order `axes`        dx = dy with the axes put back"""

    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, dy: Tensor) -> Tensor:
        return transpose(dy, tuple(self.axes.index(k) for k in range(len(self.axes))))


class Concatenate(Function):
    """y = (a, b, ...) along `axis`        da, db, ... = the parts of dy"""

    axis: int

    def forward(self, *xs: Array) -> Array:
        return self.xp.concatenate(xs, self.axis)

    def backward(self, dy: Tensor) -> list[Tensor | None]:
        parts: list[Tensor | None] = []
        start = 0
        for t, needed in zip(self.inputs, self.needs, strict=True):
            stop = start + t.shape[self.axis]
            parts.append(dy[(slice(None),) * self.axis + (slice(start, stop),)] if needed else None)
            start = stop
        return parts


class Pad(Function):
    """y = x with zeros around it, `widths` = ((before, after), ...) for each axis        dx = the middle of dy"""

    widths: tuple[tuple[int, int], ...]

    def forward(self, x: Array) -> Array:
        return self.xp.pad(x, self.widths)

    def backward(self, dy: Tensor) -> Tensor:
        return dy[tuple(slice(before, before + n) for (before, _), n in zip(self.widths, self.inputs[0].shape, strict=True))]


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x in `shape`, in which one number may be -1."""
    return x if tuple(shape) == x.shape else Reshape.apply(x, shape=tuple(shape))


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in the order `axes`, or reversed."""
    axes = range(x.ndim)[::-1] if axes is None else axes
    if sorted(a % x.ndim for a in axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {tuple(axes)} are not a permutation of the {x.ndim} axes of x {x.shape}")
    return Transpose.apply(x, axes=tuple(a % x.ndim for a in axes))


def swapaxes(x: Tensor, a: int, b: int) -> Tensor:
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return transpose(x, axes)


def concatenate(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors one after the other along an existing axis."""
    return Concatenate.apply(*xs, axis=axis % xs[0].ndim)


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors one after the other along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """A new axis of length 1 at position `axis`."""
    position = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:position], 1, *x.shape[position:]))


def split(x: Tensor, parts: int, axis: int = -1) -> list[Tensor]:
    """`parts` equal pieces along `axis`."""
    axis %= x.ndim
    if x.shape[axis] % parts:
        raise ValueError(f"split: axis {axis} of x {x.shape} does not divide into {parts} equal parts")
    n = x.shape[axis] // parts
    return [x[(slice(None),) * axis + (slice(k * n, (k + 1) * n),)] for k in range(parts)]


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """x with zeros around it: (before, after) for each axis."""
    return Pad.apply(x, widths=tuple(widths))
