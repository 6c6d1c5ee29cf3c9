"""The same numbers in another arrangement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.ops.broadcast import broadcast_to
from minirnn.tensor import Tensor


class Reshape(Function):
    """y = x in another shape        dx = dy in x's"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return reshape(dy, self.inputs[0].shape)

    def flops(self) -> int:
        return 0


class Transpose(Function):
    """y = x with its axes in the order `axes`        dx = dy with the axes put back"""

    axes: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, dy: Tensor) -> Tensor:
        return transpose(dy, tuple(self.axes.index(k) for k in range(len(self.axes))))

    def flops(self) -> int:
        return 0


class Concatenate(Function):
    """y = (a, b, ...) along `axis`        da, db, ... = the parts of dy"""

    axis: int

    def forward(self, *xs: Array) -> Array:
        return self.xp.concatenate(xs, self.axis)

    def backward(self, dy: Tensor) -> Sequence[Tensor]:
        return Split.apply_all(dy, axis=self.axis, sizes=[t.shape[self.axis] for t in self.inputs])

    def flops(self) -> int:
        return 0


class Split(Function):
    """a, b, ... = the parts of x along `axis`, of the given sizes        dx = (da, db, ...)"""

    axis: int
    sizes: Sequence[int]

    def forward(self, x: Array) -> tuple[Array, ...]:
        stops = list(accumulate(self.sizes))
        ahead = (slice(None),) * self.axis
        return tuple(x[(*ahead, slice(stop - n, stop))] for n, stop in zip(self.sizes, stops, strict=True))

    def backward(self, *parts: Tensor | None) -> Tensor:
        given = zip(parts, self.output_types, strict=True)
        return concatenate([Tensor(self.xp.zeros(*like)) if dy is None else dy for dy, like in given], self.axis)

    def flops(self) -> int:
        return 0


class Pad(Function):
    """y = x with zeros around it, `widths` = ((before, after), ...) for each axis        dx = the middle of dy"""

    widths: tuple[tuple[int, int], ...]

    def forward(self, x: Array) -> Array:
        return self.xp.pad(x, self.widths)

    def backward(self, dy: Tensor) -> Tensor:
        return dy[tuple(slice(before, before + n) for (before, _), n in zip(self.widths, self.inputs[0].shape, strict=True))]

    def flops(self) -> int:
        return 0


def reshape(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """x in `shape`, in which one number may be -1."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if shape == x.shape:
        return x
    known, open_axes = math.prod(n for n in shape if n != -1), shape.count(-1)
    fills = known == x.size if open_axes == 0 else open_axes == 1 and known > 0 and x.size % known == 0
    if not fills:
        raise ValueError(f"reshape: x {x.shape} has {x.size} elements, which do not fill shape {shape}")
    return Reshape.apply(x, shape=shape)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in the order `axes`, or reversed."""
    order = tuple(range(x.ndim)[::-1]) if axes is None else tuple(_axis("transpose", x, a) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {tuple(axes or ())} are not a permutation of the {x.ndim} axes of x {x.shape}")
    return Transpose.apply(x, axes=order)


def swapaxes(x: Tensor, a: int, b: int) -> Tensor:
    """x with the axes a and b in each other's place."""
    axes = list(range(x.ndim))
    a, b = _axis("swapaxes", x, a), _axis("swapaxes", x, b)
    axes[a], axes[b] = axes[b], axes[a]
    return transpose(x, axes)


def concatenate(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors one after the other along an existing axis."""
    xs = list(xs)
    if not xs:
        raise ValueError("concatenate: there must be at least one tensor, got none")
    axis = _axis("concatenate", xs[0], axis)
    others = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in xs}
    if len(others) > 1 or any(t.ndim != xs[0].ndim for t in xs):
        raise ValueError(f"concatenate: shapes must agree but for axis {axis}, got {', '.join(str(t.shape) for t in xs)}")
    return xs[0] if len(xs) == 1 else Concatenate.apply(*xs, axis=axis)


def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors, all of one shape, one after the other along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def split(x: Tensor, parts: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """x cut along `axis` into that many equal parts, or into parts of the sizes given."""
    axis = _axis("split", x, axis)
    n = x.shape[axis]
    sizes = [n // parts] * parts if isinstance(parts, int) else list(parts)
    if sum(sizes) != n:
        wanted = f"{parts} equal parts" if isinstance(parts, int) else f"parts of {sizes}"
        raise ValueError(f"split: axis {axis} of x {x.shape} does not divide into {wanted}")
    return list(Split.apply_all(x, axis=axis, sizes=sizes))


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """x with zeros around it: (before, after) for each axis."""
    if len(widths) != x.ndim:
        raise ValueError(f"pad: widths must be a pair (before, after) for each of the {x.ndim} axes of x {x.shape}, got {widths}")
    return Pad.apply(x, widths=tuple((before, after) for before, after in widths))


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """A new axis of length 1 at position `axis`."""
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ValueError(f"expand_dims: axis {axis} is out of range for x {x.shape} and one axis more")
    position = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:position], 1, *x.shape[position:]))


def squeeze(x: Tensor, axis: int) -> Tensor:
    """x without `axis`, whose length is 1."""
    axis = _axis("squeeze", x, axis)
    if x.shape[axis] != 1:
        raise ValueError(f"squeeze: axis {axis} of x {x.shape} has length {x.shape[axis]}, not 1")
    return reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))


def flip(x: Tensor, axis: int) -> Tensor:
    """x backwards along `axis`."""
    return x[(slice(None),) * _axis("flip", x, axis) + (slice(None, None, -1),)]


def repeat(x: Tensor, times: int, axis: int) -> Tensor:
    """Each element `times` times in a row along `axis`: a a b b."""
    axis = _axis("repeat", x, axis)
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    return reshape(broadcast_to(expand_dims(x, axis + 1), (*before, n, times, *after)), (*before, n * times, *after))


def tile(x: Tensor, times: int, axis: int) -> Tensor:
    """All of x `times` times over along `axis`: a b a b."""
    axis = _axis("tile", x, axis)
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    return reshape(broadcast_to(expand_dims(x, axis), (*before, times, n, *after)), (*before, times * n, *after))


def diagonal(x: Tensor) -> Tensor:
    """The diagonals of the last two axes of x (..., n, n): (..., n)."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"diagonal: x must be (..., n, n), got {x.shape}")
    n = x.shape[-1]
    return reshape(x, (*x.shape[:-2], n * n))[..., :: n + 1]


def _axis(name: str, x: Tensor, axis: int) -> int:
    """`axis`, counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for x {x.shape}")
    return axis % x.ndim
