"""What a decoder carries from step to step: arrays with one row for each sequence, on the model's device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from minirnn.device import Array, array_module, beside
from minirnn.tensor import Tensor

State = TypeVar("State", bound=tuple[Array | None, ...])  # a NamedTuple


def rows_first(*states: Tensor) -> tuple[Array, ...]:
    """An LSTM's states (K, B, H) as arrays (B, K, H)."""
    return tuple(s.data.swapaxes(0, 1) for s in states)


def layers_first(*states: Array) -> tuple[Tensor, ...]:
    """And back: (K, B, H) for the next step."""
    return tuple(Tensor(array_module(s).ascontiguousarray(s.swapaxes(0, 1))) for s in states)


def chosen(state: State, rows: Array) -> State:
    """The state of `rows` (R,), in that order. They come from the host, and go to a device once for all parts of the state."""
    parts: Sequence[Array | None] = state
    there = beside(rows, next(part for part in parts if part is not None))
    return type(state)(*[None if part is None else part[there] for part in parts])
