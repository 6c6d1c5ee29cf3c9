"""Whoever watches operations as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from minirnn.device import Array

if TYPE_CHECKING:
    from minirnn.autograd import Function

Direction: TypeAlias = Literal["forward", "backward"]
Results: TypeAlias = Sequence[Any]  # forward: the output arrays; backward: the gradients of the inputs, each a Tensor or None

_monitors: ContextVar[tuple[Monitor, ...]] = ContextVar("monitors", default=())


class Monitor:
    """Sees every operation as it runs: the base of the anomaly detector and the profiler."""

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        """Called in the place of `compute()`, whose results it returns. `function.inputs` are there already."""
        return compute()


@contextmanager
def monitored(monitor: Monitor) -> Iterator[None]:
    """Show every operation of this context to `monitor`."""
    token = _monitors.set((*_monitors.get(), monitor))
    try:
        yield
    finally:
        _monitors.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Show the operations of this context to nobody: they are a monitor's own."""
    token = _monitors.set(())
    try:
        yield
    finally:
        _monitors.reset(token)


is_watched: Callable[[], Sequence[Monitor]] = _monitors.get  # whether operations are shown to anybody: to whom


def watched(function: Function, direction: Direction, compute: Callable[[Any], Results], argument: Any) -> Results:
    """`compute(argument)`, in the sight of every monitor."""
    monitors = _monitors.get()
    if not monitors:
        return compute(argument)
    seen: Callable[[], Results] = partial(compute, argument)
    for monitor in monitors:
        seen = partial(monitor.watch, function, direction, seen)
    return seen()


def arrays_of(results: Results, direction: Direction) -> Sequence[Array]:
    """What came out, as arrays; of a backward pass the gradients that there are."""
    return results if direction == "forward" else [grad.data for grad in results if grad is not None]
