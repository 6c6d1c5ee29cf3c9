"""The first NaN or Inf: in which operation, layer and time step, forward or backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minirnn.device import Array, array_module, is_floating, to_device
from minirnn.diagnostics.monitor import Direction, Monitor, Results, arrays_of, monitored

if TYPE_CHECKING:
    from minirnn.autograd import Function
    from minirnn.tensor import Tensor


class AnomalyError(ArithmeticError):
    """A NaN or Inf appeared; the message says in which operation, where, and in which direction."""


class _AnomalyDetector(Monitor):
    def __init__(self) -> None:
        self.differentiated: list[Function] = []  # those whose backward pass is running, the innermost last

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if direction == "forward":
            results = compute()
            self._check(function, arrays_of(results, direction))
            return results
        self.differentiated.append(function)
        try:
            results = compute()
            self._check(function, arrays_of(results, direction))
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
