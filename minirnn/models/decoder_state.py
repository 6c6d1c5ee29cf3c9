"""What a decoder carries from step to step: arrays with one row for each sequence, on the model's device."""

from __future__ import annotations

from typing import Any, TypeVar

from minirnn.device import Array, array_module, beside
from minirnn.tensor import Tensor

State = TypeVar("State", bound=tuple[Any, ...])  # a NamedTuple of arrays, or None


def rows_first(h: Tensor, c: Tensor) -> tuple[Array, Array]:
    """An LSTM's states (K, B, H) as arrays (B, K, H)."""
    return h.data.swapaxes(0, 1), c.data.swapaxes(0, 1)


def layers_first(h: Array, c: Array) -> tuple[Tensor, Tensor]:
    """And back: (K, B, H) for the next step."""
    in_order = array_module(h).ascontiguousarray
    return Tensor(in_order(h.swapaxes(0, 1))), Tensor(in_order(c.swapaxes(0, 1)))


def chosen(state: State, rows: Array) -> State:
    """The state of `rows` (R,), in that order. They come from the host, and go to a device once for all parts of the state."""
    there = beside(rows, next(part for part in state if part is not None))
    kind: Any = type(state)
    selected: State = kind(*[None if part is None else part[there] for part in state])
    return selected
