"""Picking elements and putting them back: each of a pair is the other's derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.kernels import registry
from minirnn.tensor import Tensor


class GetItem(Function):
    """y = x[index]        dx = zeros with dy added at index"""

    index: Any

    def forward(self, x: Array) -> Array:
        return x[self.index]

    def backward(self, dy: Tensor) -> Tensor:
        return PutItem.apply(dy, index=self.index, shape=self.inputs[0].shape)


class PutItem(Function):
    """y = zeros of `shape` with x added at index        dx = dy[index]"""

    index: Any
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        y = self.xp.zeros(self.shape, x.dtype)
        if _is_basic(self.index):
            y[self.index] = x
        else:
            self.xp.add.at(y, self.index, x)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        return GetItem.apply(dy, index=self.index)


def _is_basic(index: Any) -> bool:
    """Whether `index` picks every element at most once."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) for p in parts)


class TakeRows(Function):
    """y_s = w[ids_s]        dw[v] = sum of dy_s over the s with ids_s = v

    w (V, ...), ids (S,). Only the rows that were used are written. `unique` promises that no row is taken twice.
    """

    ids: Array
    unique: bool

    def forward(self, w: Array) -> Array:
        return w[self.ids]

    def backward(self, dy: Tensor) -> Tensor:
        return PutRows.apply(dy, ids=self.ids, rows=self.inputs[0].shape[0], unique=self.unique)


class PutRows(Function):
    """y[v] = sum of x_s over the s with ids_s = v, in the order of s        dx_s = dy[ids_s]"""

    ids: Array
    rows: int
    unique: bool

    def forward(self, x: Array) -> Array:
        if not self.unique and x.dtype.kind == "f":
            flat = x.reshape(len(x), -1)
            kernel = registry.fused("embedding", x)
            return kernel.backward(flat, self.ids, self.rows).reshape(self.rows, *x.shape[1:])
        y = self.xp.zeros((self.rows, *x.shape[1:]), x.dtype)
        if self.unique:
            y[self.ids] = x
        else:
            self.xp.add.at(y, self.ids, x)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        return TakeRows.apply(dy, ids=self.ids, unique=self.unique)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with everything that NumPy allows there; Tensors in the index count as their data."""
    parts = tuple(p.data if isinstance(p, Tensor) else p for p in (index if isinstance(index, tuple) else (index,)))
    return GetItem.apply(x, index=parts)


def take_rows(w: Tensor, ids: Array, unique: bool = False) -> Tensor:
    """Rows `ids` (integers of any shape) of w (V, ...): shape ids.shape + w.shape[1:].

    `unique=True` promises that no row is taken twice, which makes the gradient a plain assignment.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"take_rows: ids must be integers, got {ids.dtype}")
    if ids.size and (ids.min() < 0 or ids.max() >= w.shape[0]):
        worst = ids.max() if ids.max() >= w.shape[0] else ids.min()
        raise IndexError(f"take_rows: id {worst} is outside 0..{w.shape[0] - 1}, the rows of w {w.shape}")
    return TakeRows.apply(w, ids=ids.reshape(-1), unique=unique).reshape(ids.shape + w.shape[1:])


def put_rows(x: Tensor, ids: Array, rows: int, unique: bool = False) -> Tensor:
    """Zeros (rows, ...) to which row s of x (S, ...) is added at ids[s]: the inverse of `take_rows`."""
    return PutRows.apply(x, ids=ids, rows=rows, unique=unique)
