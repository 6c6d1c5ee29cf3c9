"""Watching operations as they run: the anomaly detector and the profiler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from minirnn.device import Array, array_module

if TYPE_CHECKING:
    from minirnn.autograd import Function
    from minirnn.tensor import Tensor

_monitors: ContextVar[tuple[Monitor, ...]] = ContextVar("monitors", default=())


_time_step: ContextVar[int | None] = ContextVar("time_step", default=None)


@contextmanager
def time_step(t: int) -> Iterator[None]:
    """Operations of this context belong to time step `t`; error messages say so."""
    token = _time_step.set(t)
    try:
        yield
    finally:
        _time_step.reset(token)


def monitors() -> tuple[Monitor, ...]:
    """Those that watch now."""
    return _monitors.get()


class Monitor:
    """Sees every operation as it runs: the base of the anomaly detector, the profiler and the tracer."""

    def forward(self, function: Function, outputs: Sequence[Array]) -> None:
        """After `function` computed `outputs`."""

    def backward(self, function: Function, grads: Sequence[Tensor | None]) -> None:
        """After `function` computed the gradients of its inputs."""

    def begin(self, function: Function) -> None:
        """Before either of the two."""


@contextmanager
def monitored(monitor: Monitor) -> Iterator[None]:
    """Show every operation of this context to `monitor`."""
    token = _monitors.set((*_monitors.get(), monitor))
    try:
        yield
    finally:
        _monitors.reset(token)


class AnomalyError(ArithmeticError):
    """A NaN or Inf appeared; the message says in which operation, where, and in which direction."""


class _AnomalyDetector(Monitor):
    def __init__(self) -> None:
        self.steps: WeakKeyDictionary[Function, int] = WeakKeyDictionary()

    def forward(self, function: Function, outputs: Sequence[Array]) -> None:
        step = _time_step.get()
        if step is not None:
            self.steps[function] = step
        for array in outputs:
            self._check(function, array, "forward", "its operands are finite: " + self._operands(function))

    def backward(self, function: Function, grads: Sequence[Tensor | None]) -> None:
        for grad in grads:
            if grad is not None:
                self._check(function, grad.data, "backward", "the gradient that came in was finite")

    def _check(self, function: Function, array: Array, direction: str, context: str) -> None:
        if array.dtype.kind in "fc" and not bool(array_module(array).isfinite(array).all()):
            step = f" in time step {self.steps[function]}" if function in self.steps else ""
            raise AnomalyError(f"{type(function).__name__} {direction}{step}: first NaN or Inf at {function.locate(array)}; {context}")

    def _operands(self, function: Function) -> str:
        return ", ".join(f"{t.shape} in [{t.data.min():.3g}, {t.data.max():.3g}]" if t.size else f"{t.shape}" for t in function.inputs)


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Raise AnomalyError at the first operation, forward or backward, that makes a NaN or Inf out of finite operands.

    The message names the operation and where the value stands; a recurrence names the time step and the sequence. Every result is
    looked at, so this is for finding a fault, not for training.
    """
    with monitored(_AnomalyDetector()):
        yield


@dataclass
class Timing:
    """What one kind of operation cost: calls, seconds, and the bytes of its results."""

    calls: int = 0
    forward_s: float = 0.0
    backward_s: float = 0.0
    bytes: int = 0


@dataclass
class Profile(Monitor):
    """Cost by kind of operation. `str(profile)` is a table, the most expensive first."""

    by_operation: dict[str, Timing] = field(default_factory=dict)
    _started: list[float] = field(default_factory=list)

    def begin(self, function: Function) -> None:
        self._started.append(perf_counter())

    def forward(self, function: Function, outputs: Sequence[Array]) -> None:
        timing = self.by_operation.setdefault(type(function).__name__, Timing())
        timing.calls += 1
        timing.forward_s += perf_counter() - self._started.pop()
        timing.bytes += sum(array.nbytes for array in outputs)

    def backward(self, function: Function, grads: Sequence[Tensor | None]) -> None:
        timing = self.by_operation.setdefault(type(function).__name__, Timing())
        timing.backward_s += perf_counter() - self._started.pop()

    def __str__(self) -> str:
        rows = sorted(self.by_operation.items(), key=lambda item: -(item[1].forward_s + item[1].backward_s))
        lines = [f"{'operation':24} {'calls':>7} {'forward ms':>11} {'backward ms':>12} {'MB':>9}"]
        lines += [f"{n:24} {t.calls:7} {t.forward_s * 1e3:11.2f} {t.backward_s * 1e3:12.2f} {t.bytes / 1e6:9.2f}" for n, t in rows]
        return "\n".join(lines)


@contextmanager
def profile() -> Iterator[Profile]:
    """Time every operation of this context, by kind, forward and backward; operations inside another's backward pass count in both."""
    result = Profile()
    with monitored(result):
        yield result
