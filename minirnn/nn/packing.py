"""Sequences of different lengths in one batch, without padding: the packed layout of `minirnn.kernels.contract`.

Sequences are sorted by length, longest first, and the rows lie time-major: first step 0 of every sequence, then step 1 of
every sequence that has one, and so on. T steps at most, N sequences, S = sum of the lengths rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from minirnn import ops
from minirnn.device import array_module, beside
from minirnn.tensor import Tensor

Indices = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Packing:
    """Where each step of each sequence lies among the packed rows.

    Made from the lengths (N,) of the sequences, in any order. Sequences are known by their place in `lengths`, the caller's order,
    unless "sorted" is said. All, but for the masks, are int64 arrays of the host, computed when first asked for. None may be written to, so
    that one that is needed on a device moves there once (see `minirnn.device.beside`).
    """

    backwards = False  # whether the rows stand in the reverse order of time

    def __init__(self, lengths: Any) -> None:
        self.lengths: Indices = _checked(lengths)  # (N,)
        self._places: dict[int, Indices] = {}
        self._masks: dict[int, Mask] = {}

    @cached_property
    def order(self) -> Indices:
        """(N,) the sequences, longest first; equals keep the caller's order."""
        return _frozen(np.argsort(-self.lengths, kind="stable"))

    @cached_property
    def inverse(self) -> Indices:
        """(N,) the sorted place of each sequence: `x[order][inverse]` is x."""
        return _frozen(np.argsort(self.order, kind="stable"))

    @cached_property
    def sorted_lengths(self) -> Indices:
        """(N,) longest first."""
        return _frozen(self.lengths[self.order])

    @cached_property
    def batch_sizes(self) -> Indices:
        """(T,) how many sequences have a step t."""
        ended = np.cumsum(np.bincount(self.lengths))  # (T+1,) sequences of length <= t
        return _frozen(self.N - ended[:-1])

    @cached_property
    def starts(self) -> Indices:
        """(T,) first row of each step."""
        return _frozen(np.cumsum(self.batch_sizes) - self.batch_sizes)

    @cached_property
    def time(self) -> Indices:
        """(S,) the step that each row belongs to."""
        return _frozen(np.repeat(np.arange(self.T), self.batch_sizes))

    @cached_property
    def position(self) -> Indices:
        """(S,) the sorted place of the sequence that each row belongs to."""
        return _frozen(np.arange(self.S) - self.starts[self.time])

    @cached_property
    def sequence(self) -> Indices:
        """(S,) the sequence that each row belongs to."""
        return _frozen(self.order[self.position])

    @cached_property
    def rows(self) -> Indices:
        """(S,) t N + n: the place of each row in a dense (T, N, ...) array whose first two axes count as one."""
        return _frozen(self.time * self.N + self.sequence)

    def places(self, T: int) -> Indices:
        """(S,) n T + t: the place of each row in a dense (N, T, ...) array whose first two axes count as one."""
        if T not in self._places:
            self._places[T] = _frozen(self.sequence * T + self.time)
        return self._places[T]

    @cached_property
    def reverse(self) -> Indices:
        """(S,) the permutation that turns every sequence round in time, each within its own length; its own inverse."""
        return _frozen(self.starts[self.sorted_lengths[self.position] - 1 - self.time] + self.position)

    @cached_property
    def turned(self) -> Packing:
        """The packing of the same rows turned round by `reverse`."""
        turned = copy(self)
        turned.backwards = not self.backwards
        return turned

    @cached_property
    def last(self) -> Indices:
        """(N,) the row of each sequence's last step."""
        return _frozen(self.starts[self.lengths - 1] + self.inverse)

    @property
    def N(self) -> int:
        """How many sequences there are."""
        return len(self.lengths)

    @cached_property
    def T(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def S(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def is_dense(self) -> bool:
        """Whether all sequences are equally long: then the packed rows are the dense ones."""
        return self.S == self.T * self.N

    @cached_property
    def is_sorted(self) -> bool:
        """Whether the caller's order is longest first already."""
        return bool((self.lengths[1:] <= self.lengths[:-1]).all())

    def mask(self, T: int | None = None) -> Mask:
        """(N, T) true where a sequence has a step."""
        T = self.T if T is None else T
        if T not in self._masks:
            mask = np.arange(T) < self.lengths[:, None]
            mask.flags.writeable = False
            self._masks[T] = mask
        return self._masks[T]

    def sort(self, x: Tensor, axis: int = 0) -> Tensor:
        """x (N, ...) from the caller's order to longest first; the sequences may stand along another axis."""
        return x if self.is_sorted else _taken(x, self.order, axis)

    def unsort(self, x: Tensor, axis: int = 0) -> Tensor:
        """x (N, ...) from longest first to the caller's order."""
        return x if self.is_sorted else _taken(x, self.inverse, axis)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packing) and np.array_equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash(self.lengths.tobytes())

    def __repr__(self) -> str:
        return f"Packing({np.array2string(self.lengths, separator=', ', threshold=20)})"


@dataclass(frozen=True)
class Packed:
    """A ragged batch: rows (S, ...) and where they belong."""

    rows: Tensor
    packing: Packing

    def __post_init__(self) -> None:
        if self.rows.ndim == 0 or len(self.rows) != self.packing.S:
            raise ValueError(f"Packed: rows must be (S, ...) with S={self.packing.S}, the sum of the lengths, got {self.rows.shape}")

    def turned(self) -> Packed:
        """Every sequence in reverse order, each within its own length."""
        return Packed(ops.take_rows(self.rows, self.packing.reverse, unique=True), self.packing.turned)

    def unpack(self, T: int | None = None, batch_first: bool = False) -> Tensor:
        """Dense (T, N, ...), or (N, T, ...), zero after each sequence's end; T is the longest length unless a longer one is given."""
        packing = self.packing
        T = packing.T if T is None else T
        if packing.T > T:
            raise ValueError(f"unpack: T={T} is shorter than the longest sequence, {packing.T}")
        shape = (packing.N, T) if batch_first else (T, packing.N)
        places = packing.places(T) if batch_first else packing.rows
        complete = packing.is_dense and packing.T == T and not batch_first
        rows = self.rows if complete else ops.put_rows(self.rows, places, T * packing.N, unique=True)
        return rows.reshape((*shape, *self.rows.shape[1:]))


@lru_cache(maxsize=64)
def dense(T: int, N: int) -> Packing:
    """The packing of N sequences of T steps each; one that is asked for again is the same."""
    return Packing(np.full(N, T))


def pack(x: Tensor, lengths: Any) -> Packed:
    """The real steps of a dense batch x (T, N, ...), in which sequence n has `lengths[n]` steps; what comes after is never read.

    lengths  (N,) integers in 1..T, or their Packing
    """
    packing = lengths if isinstance(lengths, Packing) else Packing(lengths)
    if x.ndim < 2 or x.shape[1] != packing.N:
        raise ValueError(f"pack: lengths must be (N,), one for each sequence of x (T, N, ...) = {x.shape}, got {packing.lengths.shape}")
    if x.shape[0] < packing.T:
        raise ValueError(
            f"pack: sequence {packing.lengths.argmax()} has length {packing.T}, x (T, N, ...) = {x.shape} has only {x.shape[0]} steps"
        )
    flat = x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))
    if packing.is_dense:
        return Packed(flat if x.shape[0] == packing.T else flat[: packing.S], packing)
    return Packed(ops.take_rows(flat, packing.rows, unique=True), packing)


def pack_sequence(sequences: Sequence[Any]) -> Packed:
    """Pack sequences of different lengths, each (T_n, ...): arrays, or Tensors through which gradients flow back."""
    if not sequences:
        raise ValueError("pack_sequence: no sequences")
    packing = Packing([len(s) for s in sequences])
    begin = np.cumsum(packing.lengths) - packing.lengths  # (N,) where each starts if they lie one after the other
    places = begin[packing.sequence] + packing.time  # (S,)
    if all(isinstance(s, Tensor) for s in sequences):
        return Packed(ops.take_rows(ops.concatenate(sequences), places, unique=True), packing)
    xp = array_module(sequences[0])
    rows = xp.concatenate(sequences)
    return Packed(Tensor(rows[beside(places, rows)]), packing)


def _taken(x: Tensor, order: Indices, axis: int) -> Tensor:
    return ops.take_rows(x, order, unique=True) if axis == 0 else x[(slice(None),) * axis + (order,)]


def _checked(lengths: Any) -> Indices:
    array = np.asarray(lengths)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"lengths must be (N,) integers, one for each sequence, N >= 1, got {array.dtype} {array.shape}")
    if array.min() < 1:
        n = int(array.argmin())
        raise ValueError(f"lengths: sequence {n} has length {array[n]}; every sequence needs at least one step, leave empty ones out")
    return _frozen(array.astype(np.int64))


def _frozen(array: Any) -> Indices:
    array.flags.writeable = False
    return array  # type: ignore[no-any-return]
