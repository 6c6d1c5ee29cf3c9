"""The first NaN or Inf: in which operation, layer and time step it appeared, forward or backward, and what went before."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minirnn.device import Array, is_floating, to_device
from minirnn.diagnostics.inside import look_inside
from minirnn.diagnostics.monitor import Direction, Monitor, Results, arrays_of, monitored
from minirnn.diagnostics.table import titled
from minirnn.place import Place

if TYPE_CHECKING:
    from minirnn.autograd import Function

RECENT = 12  # operations of the table


class AnomalyError(ArithmeticError):
    """A NaN or Inf appeared. Its text is one line: which operation, layer and time step, forward or backward, and where the number stands.

    `table` shows how it came about, and a traceback prints it below the line: the last operations and the range of what each gave; operands
    and results of the one that failed; of a fused layer every gate, state and gradient, step by step, up to the one that broke.
    """

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(message)
        self.table = table
        if table:
            self.add_note(table)


class _Seen(NamedTuple):
    """An operation that has run, and what it gave."""

    what: str
    place: Place
    shape: tuple[int, ...]  # of the first result
    low: float
    high: float


class _AnomalyDetector(Monitor):
    def __init__(self) -> None:
        self.differentiated: list[Function] = []  # those whose backward pass is running, the innermost last
        self.recent: deque[_Seen] = deque(maxlen=RECENT)

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if direction == "forward":
            results = compute()
            self._look_at(function, arrays_of(results, direction))
            return results
        self.differentiated.append(function)
        try:
            results = compute()
            self._look_at(function, arrays_of(results, direction))
        finally:
            self.differentiated.pop()
        return results

    def _look_at(self, function: Function, arrays: Sequence[Array]) -> None:
        """Raise unless all arrays are finite. A backward pass is made of operations itself: what fails in one of them is its failure."""
        ranges = [_range(array) for array in arrays]
        blamed = self.differentiated[-1] if self.differentiated else function
        place = blamed.place if function.place.step is None else function.place
        what = f"{type(blamed).__name__} {'backward' if self.differentiated else 'forward'}"
        part = "" if blamed is function else f" (its {type(function).__name__})"
        if arrays:
            lows, highs = np.transpose(ranges)
            self.recent.append(_Seen(what + part, place, tuple(arrays[0].shape), lows.min(), highs.max()))
        output = next((k for k, (low, high) in enumerate(ranges) if not (math.isfinite(low) and math.isfinite(high))), None)
        if output is not None:
            raise self._error(function, blamed, place, what, part, arrays, output)

    def _error(
        self, function: Function, blamed: Function, place: Place, what: str, part: str, arrays: Sequence[Array], output: int
    ) -> AnomalyError:
        inside = look_inside(blamed, function if self.differentiated else None)
        first = None if inside is None else inside.first()
        if inside is not None and first is not None:
            part, spot = "", first.words(has_steps=place.step is None and inside.has_steps)
        else:
            spot = f"at {f'output {output}, ' if len(arrays) > 1 else ''}{function.locate(to_device(arrays[output], 'cpu'))}"
        step = "" if place.step is None else f"time step {place.step}"
        where = ", ".join(filter(None, (place.name, step)))
        message = f"{what}{f' in {where}' if where else ''}{part}: first NaN or Inf {spot}; {_described(function)}"
        tables = [self._last_operations(), _operands(function, blamed, arrays)]
        if inside is not None:
            again = "It has run once more, and all that is inside it was finite this time."
            tables.append(again if first is None else inside.table(first))
        return AnomalyError(message, "\n\n".join(tables))

    def _last_operations(self) -> str:
        names: dict[Place, str] = {}
        lines = []
        for seen in self.recent:
            place = seen.place._replace(step=None, packing=None)
            names[place] = names.get(place) or place.name or "-"
            step = "-" if seen.place.step is None else str(seen.place.step)
            lines.append([names[place], seen.what, step, str(seen.shape), _number(seen.low), _number(seen.high)])
        header = ["layer", "operation", "step", "shape", "low", "high"]
        return titled("The last operations, and the range of what each gave:", header, lines, words=2)


def _operands(function: Function, blamed: Function, arrays: Sequence[Array]) -> str:
    names = _operand_names(blamed if hasattr(function, "arity") else function)  # the gradient of a recurrence begins with its operands
    rows = [[names.get(k) or f"operand {k}", *_summary(t.data)] for k, t in enumerate(function.inputs)]
    rows += [[f"result {k}" if len(arrays) > 1 else "result", *_summary(array)] for k, array in enumerate(arrays)]
    title = f"Operands and results of {type(function).__name__}:"
    return titled(title, ["", "shape", "low", "high", "NaN", "Inf"], rows, words=1)


def _range(array: Array) -> tuple[float, float]:
    """The least and the largest number, of complex ones by their size; NaN where there is one; 0 of none, and of what is no float."""
    if not is_floating(array.dtype) or not array.size:
        return 0.0, 0.0
    if array.dtype.kind == "V":  # bfloat16
        array = array.astype(np.float32)
    array = abs(array) if array.dtype.kind == "c" else array
    with np.errstate(invalid="ignore"):
        return float(array.min()), float(array.max())


def _number(x: float) -> str:
    return f"{x:.3g}"


def _summary(array: Array) -> list[str]:
    """Shape, range of what is finite, and how many are not."""
    host = to_device(array, "cpu")
    if not is_floating(host.dtype):
        return [str(host.shape), "-", "-", "-", "-"]
    nans, finite = np.isnan(host), np.isfinite(host)
    low, high = map(_number, _range(host[finite])) if finite.any() else ("-", "-")
    return [str(host.shape), low, high, str(int(nans.sum())), str(int((~finite & ~nans).sum()))]


def _operand_names(function: Function) -> dict[int, str]:
    """What the operation calls its operands, and their modules its parameters."""
    names = [p.name for p in inspect.signature(function.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return dict(enumerate(names)) | _parameter_names(function)


def _parameter_names(function: Function) -> dict[int, str]:
    return {k: name for k, t in enumerate(function.inputs) if (name := getattr(t, "name", ""))}


def _described(function: Function) -> str:
    """What is to be known about the operands of an operation that failed."""
    ranges = [(t, *_range(t.data)) for t in function.inputs]
    bad = [k for k, (_, low, high) in enumerate(ranges) if not (math.isfinite(low) and math.isfinite(high))]
    if bad:
        names = {k: f"operand {k}" for k in bad} | _parameter_names(function)
        return f"NaN or Inf came in with {' and '.join(f'{names[k]} {function.inputs[k].shape}' for k in bad)}"
    shown = [f"{t.shape} in [{_number(low)}, {_number(high)}]" for t, low, high in ranges if t.size and t.dtype.kind == "f"]
    return f"its operands are finite: {', '.join(shown)}"


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Raise AnomalyError at the first operation, forward or backward, whose result holds a NaN or Inf.

        with mr.detect_anomaly():
            model.loss(batch).backward()

    The message names the operation, the layer, the time step, where the value stands, and what the operands were; of a fused layer the
    gate, state or gradient in which it began. The error's `table`, which a traceback prints, shows what the numbers were before. Both
    passes belong into the context. Every result is looked at, for which the host waits on a device, so this is for finding a fault, not
    for training.
    """
    with monitored(_AnomalyDetector()):
        yield
