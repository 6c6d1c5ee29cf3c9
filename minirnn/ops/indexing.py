"""Picking elements and putting them back: each of a pair is the other's derivative.

Indices that come from the host are checked there, and moved to the device once; those of a device are taken as they are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirnn.autograd import Function
from minirnn.device import Array, array_module, beside, on_host
from minirnn.kernels import registry
from minirnn.tensor import Tensor


class GetItem(Function):
    """y = x[index]        dx = zeros with dy added at index

    `unique` says that the index picks no element twice.
    """

    index: Any
    unique: bool

    def forward(self, x: Array) -> Array:
        return x[self.index]

    def backward(self, dy: Tensor) -> Tensor:
        return PutItem.apply(dy, index=self.index, shape=self.inputs[0].shape, unique=self.unique)

    def flops(self) -> int:
        return 0


class PutItem(Function):
    """y = zeros of `shape` with x added at index        dx = dy[index]"""

    index: Any
    shape: tuple[int, ...]
    unique: bool

    def forward(self, x: Array) -> Array:
        return _put(self.index, self.shape, x, self.unique)

    def backward(self, dy: Tensor) -> Tensor:
        return GetItem.apply(dy, index=self.index, unique=self.unique)

    def flops(self) -> int:
        return 0 if self.unique else self.inputs[0].size


class TakeRows(Function):
    """y_s = w[ids_s]        dw[v] = sum of dy_s over the s with ids_s = v

    w (V, ...), ids (S,). Only the rows that were used are written. `unique` promises that no row is taken twice.
    """

    ids: Array
    unique: bool

    def forward(self, w: Array) -> Array:
        return w.take(self.ids, 0)

    def backward(self, dy: Tensor) -> Tensor:
        return PutRows.apply(dy, ids=self.ids, rows=self.inputs[0].shape[0], unique=self.unique)

    def flops(self) -> int:
        return 0


class PutRows(Function):
    """y[v] = sum of x_s over the s with ids_s = v, in the order of s        dx_s = dy[ids_s]"""

    ids: Array
    rows: int
    unique: bool

    def forward(self, x: Array) -> Array:
        shape = (self.rows, *x.shape[1:])
        if self.unique:
            return _put(self.ids, shape, x, unique=True)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        y = registry.fused("embedding", x).backward(flat, self.ids, self.rows)
        return y if y.shape == shape else y.reshape(shape)  # a view as the gradient of a leaf would be copied

    def backward(self, dy: Tensor) -> Tensor:
        return TakeRows.apply(dy, ids=self.ids, unique=self.unique)

    def flops(self) -> int:
        return 0 if self.unique else self.inputs[0].size


class TakeAlongAxis(Function):
    """y = x[.., indices, ..], the indices standing along `axis`        dx = zeros with dy added there"""

    indices: Array
    axis: int
    unique: bool

    def forward(self, x: Array) -> Array:
        return self.xp.take_along_axis(x, self.indices, self.axis)

    def backward(self, dy: Tensor) -> Tensor:
        options = {"indices": self.indices, "axis": self.axis, "size": self.inputs[0].shape[self.axis], "unique": self.unique}
        return PutAlongAxis.apply(dy, **options)

    def flops(self) -> int:
        return 0


class PutAlongAxis(Function):
    """y = zeros with x added at y[.., indices, ..], the indices standing along `axis`        dx = dy[.., indices, ..]"""

    indices: Array
    axis: int
    size: int
    unique: bool

    def forward(self, x: Array) -> Array:
        grid = [self.xp.arange(n).reshape(-1, *[1] * (x.ndim - 1 - k)) for k, n in enumerate(x.shape)]
        grid[self.axis] = self.indices
        return _put(tuple(grid), (*x.shape[: self.axis], self.size, *x.shape[self.axis + 1 :]), x, self.unique)

    def backward(self, dy: Tensor) -> Tensor:
        return TakeAlongAxis.apply(dy, indices=self.indices, axis=self.axis, unique=self.unique)

    def flops(self) -> int:
        return 0 if self.unique else self.inputs[0].size


def _put(index: Any, shape: tuple[int, ...], x: Array, unique: bool) -> Array:
    """Zeros of `shape` with x added at `index`, in the order of x; `unique`: no element is meant twice."""
    xp = array_module(x)
    if unique:
        y = xp.zeros(shape, x.dtype)
        y[index] = x
        return y
    size = math.prod(shape)
    places = xp.arange(size).reshape(shape)[index]  # each element's place in y
    return registry.fused("embedding", x).backward(x.reshape(-1, 1), places.reshape(-1), size).reshape(shape)


def _is_basic(index: Any) -> bool:
    """Whether `index` picks every element at most once."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) or (hasattr(p, "dtype") and p.dtype == bool) for p in parts
    )


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with everything that NumPy allows there; Tensors in the index count as their data.

    On a device, index arrays and masks from the host are checked there and moved. Index arrays of the device are taken as they are: one out
    of range is no error, it wraps around. A mask of the device makes the host wait, since only its numbers say what shape the result has.
    """
    parts = tuple(p.data if isinstance(p, Tensor) else p for p in (index if isinstance(index, tuple) else (index,)))
    return GetItem.apply(x, index=parts if on_host(x.data) else _moved(parts, x.data), unique=_is_basic(parts))


def _moved(parts: tuple[Any, ...], x: Array) -> tuple[Any, ...]:
    """The parts of an index of x, those of the host checked and on the device; a mask becomes the places where it is true."""
    parts = tuple(np.asarray(p) if isinstance(p, list) else p for p in parts)
    open_axes = x.ndim - sum(_axes_of(p) for p in parts)  # those that an Ellipsis stands for
    moved: list[Any] = []
    axis = 0
    for p in parts:
        if isinstance(p, np.ndarray) and p.dtype == bool:
            if p.shape != x.shape[axis : axis + p.ndim]:
                raise IndexError(f"getitem: the mask {p.shape} must have the shape of x {x.shape} from axis {axis} on")
            moved += [beside(places, x) for places in p.nonzero()]
        elif isinstance(p, np.ndarray):
            n = x.shape[axis]
            if p.size and (p.min() < -n or p.max() >= n):
                raise IndexError(f"getitem: an index is outside -{n}..{n - 1}, axis {axis} of x {x.shape}")
            moved.append(beside(p, x))
        else:
            moved.append(p)
        axis += open_axes if p is Ellipsis else _axes_of(p)
    return tuple(moved)


def _axes_of(part: Any) -> int:
    """How many axes a part of an index stands for; an Ellipsis for none of its own."""
    if part is None or part is Ellipsis:
        return 0
    return int(part.ndim) if hasattr(part, "dtype") and part.dtype == bool else 1


def usable_ids(name: str, ids: Array, rows: int, like: Tensor) -> Array:
    """ids beside `like`. Those of the host are checked to be in 0..rows-1; to check those of a device, the host would have to wait."""
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, got {ids.dtype}")
    if on_host(ids) and ids.size and (ids.min() < 0 or ids.max() >= rows):
        worst = ids.max() if ids.max() >= rows else ids.min()
        raise IndexError(f"{name}: id {worst} is outside 0..{rows - 1}, the {rows} rows that there are")
    return beside(ids, like.data)


def take_rows(w: Tensor, ids: Array, unique: bool = False) -> Tensor:
    """Rows `ids` (integers of any shape) of w (V, ...): shape ids.shape + w.shape[1:].

    Ids of the host are checked, and moved to the device of w; ids on a device are not checked: one out of range is no error there.

    `unique=True` promises that no row is taken twice, which makes the gradient a plain assignment.
    """
    ids = usable_ids("take_rows", ids, w.shape[0], w)
    return TakeRows.apply(w, ids=ids.reshape(-1), unique=unique).reshape(ids.shape + w.shape[1:])


def put_rows(x: Tensor, ids: Array, rows: int, unique: bool = False) -> Tensor:
    """Zeros (rows, ...) to which row s of x (S, ...) is added at ids[s] (S,): the inverse of `take_rows`.

    `unique=True` promises that no row is written twice.
    """
    if ids.shape != x.shape[:1]:
        raise ValueError(f"put_rows: ids must be (S,) for x (S, ...) = {x.shape}, got {ids.shape}")
    ids = usable_ids("put_rows", ids, rows, x)
    return PutRows.apply(x, ids=ids, rows=rows, unique=unique)


def take_along_axis(x: Tensor, indices: Array, axis: int = -1, unique: bool = False) -> Tensor:
    """y[a, k, b] = x[a, indices[a, k, b], b] where k stands at `axis`: gather.

    indices  integers in 0..n-1, n the length of that axis; the shape of x but for it
    unique   promises that no element is taken twice, which makes the gradient a plain assignment
    """
    axis = _check_along("take_along_axis", x, indices, axis)
    indices = usable_ids("take_along_axis", indices, x.shape[axis], x)
    return TakeAlongAxis.apply(x, indices=indices, axis=axis, unique=unique)


def put_along_axis(x: Tensor, indices: Array, size: int, axis: int = -1, unique: bool = False) -> Tensor:
    """Zeros, `size` along `axis`, to which x[a, k, b] is added at [a, indices[a, k, b], b]: scatter, the inverse of `take_along_axis`."""
    axis = _check_along("put_along_axis", x, indices, axis)
    if indices.shape[axis] != x.shape[axis]:
        raise ValueError(f"put_along_axis: indices must have the shape of x {x.shape}, got {indices.shape}")
    indices = usable_ids("put_along_axis", indices, size, x)
    return PutAlongAxis.apply(x, indices=indices, axis=axis, size=size, unique=unique)


def _check_along(name: str, x: Tensor, indices: Array, axis: int) -> int:
    """`axis`, counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for x {x.shape}")
    axis %= x.ndim
    if indices.ndim != x.ndim or any(n != m for k, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)) if k != axis):
        raise ValueError(f"{name}: indices must have the shape of x {x.shape} but for axis {axis}, got {indices.shape}")
    return axis
