"""Watching operations as they run: the anomaly detector and the profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from minirnn.device import Array, array_module, device_of, is_floating, synchronize, to_device

if TYPE_CHECKING:
    from minirnn.autograd import Function
    from minirnn.tensor import Tensor

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


def is_watched() -> bool:
    """Whether operations are shown to any monitor."""
    return bool(_monitors.get())


def watched(function: Function, direction: Direction, compute: Callable[[Any], Results], argument: Any) -> Results:
    """`compute(argument)`, in the sight of every monitor."""
    monitors = _monitors.get()
    if not monitors:
        return compute(argument)
    seen: Callable[[], Results] = partial(compute, argument)
    for monitor in monitors:
        seen = partial(monitor.watch, function, direction, seen)
    return seen()


def _arrays(results: Results, direction: Direction) -> Sequence[Array]:
    return results if direction == "forward" else [grad.data for grad in results if grad is not None]


class AnomalyError(ArithmeticError):
    """A NaN or Inf appeared; the message says in which operation, where, and in which direction."""


class _AnomalyDetector(Monitor):
    def __init__(self) -> None:
        self.differentiated: list[Function] = []  # those whose backward pass is running, the innermost last

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if direction == "forward":
            results = compute()
            self._check(function, _arrays(results, direction))
            return results
        self.differentiated.append(function)
        try:
            results = compute()
            self._check(function, _arrays(results, direction))
        finally:
            self.differentiated.pop()
        return results

    def _check(self, function: Function, arrays: Sequence[Array]) -> None:
        """Raise unless all arrays are finite. A backward pass is made of operations itself: what fails in one of them is its failure."""
        output = next((k for k, array in enumerate(arrays) if not _is_finite(array)), None)
        if output is None:
            return
        blamed = self.differentiated[-1] if self.differentiated else function
        name = f"{type(blamed).__name__} {'backward' if self.differentiated else 'forward'}"
        step = blamed.place.step if function.place.step is None else function.place.step
        when = "" if step is None else f" in time step {step}"
        part = "" if blamed is function else f" (its {type(function).__name__})"
        place = (f"output {output}, " if len(arrays) > 1 else "") + function.locate(to_device(arrays[output], "cpu"))
        raise AnomalyError(f"{name}{when}{part}: first NaN or Inf at {place}; {_describe(function.inputs)}")


def _is_finite(array: Array) -> bool:
    return not is_floating(array.dtype) or bool(array_module(array).isfinite(array).all())


def _describe(operands: Sequence[Tensor]) -> str:
    """What is to be known about the operands of an operation that failed."""
    bad = [f"operand {k} {t.shape}" for k, t in enumerate(operands) if not _is_finite(t.data)]
    if bad:
        return f"NaN or Inf came in with {' and '.join(bad)}"
    ranges = [f"{t.shape} in [{float(t.data.min()):.3g}, {float(t.data.max()):.3g}]" for t in operands if t.size and t.dtype.kind == "f"]
    return f"its operands are finite: {', '.join(ranges)}"


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Raise AnomalyError at the first operation, forward or backward, whose result holds a NaN or Inf.

    The message names the operation, the time step, where the value stands, and what the operands were. Both passes belong into the
    context. Every result is looked at, for which the host waits on a device, so this is for finding a fault, not for training.
    """
    with monitored(_AnomalyDetector()):
        yield


def _wait_for(devices: Iterable[str]) -> None:
    for device in devices:
        synchronize(device)


@dataclass
class Timing:
    """What one kind of operation cost: calls, seconds, and the bytes of its results, gradients included."""

    calls: int = 0
    forward_s: float = 0.0
    backward_s: float = 0.0
    bytes: int = 0


@dataclass
class Profile(Monitor):
    """Cost by kind of operation. `str(profile)` is a table, the most expensive first.

    An operation that runs inside another's backward pass counts there, so that the columns add up to the time spent.
    """

    by_operation: dict[str, Timing] = field(default_factory=dict)
    _inside: bool = False

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if self._inside:
            return compute()
        timing = self.by_operation.setdefault(type(function).__name__, Timing())
        self._inside = True
        devices = {device_of(t.data) for t in function.inputs} - {"cpu"}
        _wait_for(devices)
        start = perf_counter()
        try:
            results = compute()
            _wait_for(devices)
        finally:
            self._inside = False
        seconds = perf_counter() - start
        if direction == "backward":
            timing.backward_s += seconds
        else:
            timing.calls += 1
            timing.forward_s += seconds
        timing.bytes += sum(array.nbytes for array in _arrays(results, direction))
        return results

    def __str__(self) -> str:
        rows = sorted(self.by_operation.items(), key=lambda item: -(item[1].forward_s + item[1].backward_s))
        timings = self.by_operation.values()
        total = Timing(*(sum(column) for column in zip(*map(astuple, timings), strict=True))) if timings else Timing()
        lines = [f"{'operation':24} {'calls':>7} {'forward ms':>11} {'backward ms':>12} {'MB':>9}"]
        for name, t in [*rows, ("total", total)]:
            lines.append(f"{name:24} {t.calls:7} {t.forward_s * 1e3:11.2f} {t.backward_s * 1e3:12.2f} {t.bytes / 1e6:9.2f}")
        return "\n".join(lines)


@contextmanager
def profile() -> Iterator[Profile]:
    """Time every operation of this context, by kind, forward and backward. `print` what the context gives.

    On a device the host waits before and after each operation, so that its time is its own: the sum is more than the same run takes
    unwatched, where host and device work side by side.
    """
    result = Profile()
    with monitored(result):
        yield result
