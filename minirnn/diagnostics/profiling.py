"""Where the time goes: by layer, operation, direction and time step, and by kernel; with the bytes made and the operations on numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from minirnn.device import device_of, is_array, synchronize
from minirnn.diagnostics.monitor import Direction, Monitor, Results, arrays_of, monitored
from minirnn.diagnostics.table import table
from minirnn.kernels import flops, registry
from minirnn.place import Place, here

if TYPE_CHECKING:
    from minirnn.autograd import Function
    from minirnn.nn.module import Module

By: TypeAlias = Literal["place", "layer", "operation", "step", "kernel"]
COLUMNS: dict[By, tuple[str, ...]] = {
    "place": ("layer", "operation", "direction"),
    "layer": ("layer",),
    "operation": ("operation", "direction"),
    "step": ("layer", "step", "operation", "direction"),
    "kernel": ("layer", "operation", "direction", "kernel"),
}
SHOWN = 40  # rows of a table
_NONE: frozenset[str] = frozenset()
AGAIN = "again"  # the direction of what a checkpoint computes a second time


@dataclass(frozen=True)
class Row:
    """What some calls cost. Of the words, those that `Profile.rows` was not asked for are None.

    Args:
        layer: as "encoder.l0", see `minirnn.place.Place.name`; "" outside of all modules.
        operation: the class of a Function; "" for a kernel that ran outside of all, as an optimiser's does.
        direction: "forward", "backward", "again" for what a checkpoint computes a second time; "" outside of all operations.
        step: the time step, where operations ran one step at a time; else None.
        kernel: as "lstm numba forward".
        calls: how many.
        seconds: all together.
        bytes: of an operation its results, or the gradients it gives (a view counts like a copy); of a kernel its arguments and results,
            each array once.
        flops: operations on numbers as `minirnn.kernels.flops` counts them; None where an operation does not say.
    """

    layer: str | None = None
    operation: str | None = None
    direction: str | None = None
    step: int | None = None
    kernel: str | None = None
    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0
    flops: int | None = 0

    @property
    def gflops(self) -> float | None:
        """Thousand million operations a second."""
        return None if self.flops is None or not self.seconds else self.flops / self.seconds / 1e9

    def __add__(self, other: Row) -> Row:
        known = None if self.flops is None or other.flops is None else self.flops + other.flops
        words = self.layer, self.operation, self.direction, self.step, self.kernel
        return Row(*words, self.calls + other.calls, self.seconds + other.seconds, self.bytes + other.bytes, known)


@dataclass
class _Frame:
    """An operation that is running."""

    function: Function
    direction: str
    inside: float = 0.0  # seconds of operations in it that have rows of their own
    watching: float = 0.0  # seconds of the profiler's own in it
    flops: int | None = 0  # of the operations that it is made of


Key: TypeAlias = tuple["Module | None", str, int | None, str, str, str | None]  # module, part, step, operation, direction, kernel


@dataclass
class Profile(Monitor):
    """What the operations of a context cost. `str(profile)` is tables; `rows` is for programs, `as_dict` for JSON.

    An operation that runs inside another's backward pass counts there, but for those that a checkpoint runs again: the rows add up.
    `seconds` is the time of the whole context, without the profiler's own, and so tells the rest: Python between operations, the optimiser,
    the data.
    """

    seconds: float = 0.0
    _costs: dict[Key, Row] = field(default_factory=dict)  # by objects: what a module is called is looked up once, at the end
    _rows: list[Row] = field(default_factory=list)
    _frames: list[_Frame] = field(default_factory=list)
    _watching: float = 0.0
    _kernel_runs: bool = False

    def rows(self, by: By = "place") -> list[Row]:
        """The costs, the most expensive first.

        by  "place"      layer, operation, direction
            "layer", "operation" (and its direction)
            "step"       as "place", and by time step, in its order
            "kernel"     which ran inside which operation: a part of the operation's time, not to be added to it
        """
        if by not in COLUMNS:
            raise ValueError(f"rows: by must be one of {', '.join(COLUMNS)}, got {by!r}")
        self._settle()
        found: dict[tuple[Any, ...], Row] = {}
        for row in self._rows:
            if (row.kernel is not None) == (by == "kernel"):
                words = {name: getattr(row, name) for name in COLUMNS[by]}
                key = tuple(words.values())
                found[key] = found.get(key, Row(**words)) + row
        if by == "step":
            return sorted(found.values(), key=lambda row: (row.layer, -1 if row.step is None else row.step, -row.seconds))
        return sorted(found.values(), key=lambda row: -row.seconds)

    def table(self, by: By = "place", most: int | None = SHOWN) -> str:
        """`rows(by)` as text, `most` of them (None: all), then the total, and what of the context's time is outside of all operations."""
        rows, columns = self.rows(by), COLUMNS[by]
        shown, others = rows[:most], rows[len(rows) if most is None else most :]
        lines = [[*(_word(getattr(row, name)) for name in columns), *self._numbers(row)] for row in shown]
        total = sum(rows, Row())
        blank = [""] * (len(columns) - 1)
        if others:
            lines.append([f"{len(others)} more", *blank, *self._numbers(sum(others, Row()))])
        lines.append(["total", *blank, *self._numbers(total)])
        if by != "kernel" and self.seconds:
            seconds = self.seconds - total.seconds
            lines.append(["not in operations", *blank, "", *self._time(seconds), "", "", ""])
        return "\n".join(table([*columns, "calls", "ms", "%", "MB", "MFLOP", "GFLOP/s"], lines, len(columns)))

    def __str__(self) -> str:
        return self.table() + (f"\n\n{self.table('kernel')}" if self.rows("kernel") else "")

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it: "seconds", and "operations" and "kernels", lists of what a `Row` holds."""
        rows = {"operations": self.rows("step"), "kernels": self.rows("kernel")}
        return {"seconds": self.seconds, **{name: [asdict(row) for row in found] for name, found in rows.items()}}

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        entered = perf_counter()
        outer = self._frames[-1] if self._frames else None
        again = outer is not None and outer.function.composite
        frame = _Frame(function, AGAIN if again and direction == "forward" else direction)
        has_row = outer is None or again
        devices = {device_of(t.data) for t in function.inputs} - {"cpu"} if has_row else _NONE
        with self._in_sight(function, frame):
            _wait_for(devices)
            start = perf_counter()
            results = compute()
            _wait_for(devices)
            end = perf_counter()
        seconds = end - start - frame.watching
        stated = function.flops() if direction == "forward" else function.backward_flops()
        cost = frame.flops if stated is None and direction == "backward" else stated
        if has_row:
            made = sum(array.nbytes for array in arrays_of(results, direction))
            self._add(function.place, type(function).__name__, frame.direction, None, seconds - frame.inside, made, cost)
        if again and outer is not None:
            outer.inside += seconds
        elif outer is not None:
            outer.flops = None if outer.flops is None or cost is None else outer.flops + cost
        self._watched(start - entered + perf_counter() - end + frame.watching)
        return results

    @contextmanager
    def _in_sight(self, function: Function, frame: _Frame) -> Iterator[None]:
        """The operation is the innermost that runs, and the kernel that it holds is timed; what it keeps is the kernel itself."""
        self._frames.append(frame)
        kernel = getattr(function, "kernel", None)
        if isinstance(kernel, ModuleType):
            function.kernel = _Timed(self, kernel)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self._frames.pop()
            kernel = getattr(function, "kernel", None)
            if isinstance(kernel, _Timed):
                function.kernel = kernel.module  # type: ignore[attr-defined]

    def call(self, kernel: tuple[str, ...], name: str, run: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """A function of a kernel, timed. What a kernel calls in another one is a part of it."""
        if self._kernel_runs:
            return run(*arguments, **options)
        entered = perf_counter()
        arrays = {id(a): a for a in _arrays_in([arguments, options])}
        devices = {device_of(a) for a in arrays.values()} - {"cpu"}
        counted = flops.CALLS.get((kernel[0], name))
        cost = None if counted is None else counted(*arguments, **options)  # before it writes to them
        self._kernel_runs = True
        _wait_for(devices)
        start = perf_counter()
        try:
            result = run(*arguments, **options)
            _wait_for(devices)
        finally:
            self._kernel_runs = False
        end = perf_counter()
        arrays |= {id(a): a for a in _arrays_in(result)}
        moved = sum(a.nbytes for a in arrays.values())
        frame = next((f for f in self._frames if not f.function.composite), None)  # the one that has a row
        where = (here(), "", "") if frame is None else (frame.function.place, type(frame.function).__name__, frame.direction)
        self._add(*where, " ".join((*kernel, name)), end - start, moved, cost)
        self._watched(start - entered + perf_counter() - end)
        return result

    def _add(self, place: Place, operation: str, direction: str, kernel: str | None, seconds: float, made: int, cost: int | None) -> None:
        key = place.module, place.part, place.step, operation, direction, kernel
        row = Row(calls=1, seconds=seconds, bytes=made, flops=cost)
        known = self._costs.get(key)
        self._costs[key] = row if known is None else known + row

    def _watched(self, seconds: float) -> None:
        """Leave the profiler's own time out, of what it runs in."""
        if self._frames:
            self._frames[-1].watching += seconds
        else:
            self._watching += seconds

    def _settle(self) -> None:
        """Give modules their names, and let go of them."""
        names: dict[tuple[Any, str], str] = {}
        for (module, part, step, operation, direction, kernel), cost in self._costs.items():
            if (module, part) not in names:
                names[module, part] = Place(module, part).name
            layer = names[module, part]
            self._rows.append(replace(cost, layer=layer, operation=operation, direction=direction, step=step, kernel=kernel))
        self._costs.clear()

    def _numbers(self, row: Row) -> list[str]:
        rate = "-" if row.gflops is None else f"{row.gflops:.2f}"
        count = "-" if row.flops is None else f"{row.flops / 1e6:.3f}"
        return [str(row.calls), *self._time(row.seconds), f"{row.bytes / 1e6:.2f}", count, rate]

    def _time(self, seconds: float) -> list[str]:
        return [f"{seconds * 1e3:.2f}", f"{100 * seconds / self.seconds:.1f}" if self.seconds else "-"]


class _Timed:
    """Stands in for the module of a kernel, whose functions it times."""

    def __init__(self, profile: Profile, module: ModuleType) -> None:
        self.profile, self.module = profile, module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        return self._timed(name, found) if callable(found) else found

    def _timed(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        kernel = registry.name_of(self.module)
        return lambda *arguments, **options: self.profile.call(kernel, name, run, arguments, options)


def _word(value: Any) -> str:
    return "-" if value in (None, "") else str(value)


def _arrays_in(values: Any) -> Iterator[Any]:
    """Every array in nested sequences and mappings."""
    if is_array(values):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _arrays_in(value)
    elif isinstance(values, dict):
        yield from _arrays_in(list(values.values()))


def _wait_for(devices: Iterable[str]) -> None:
    for device in devices:
        synchronize(device)


@contextmanager
def profile() -> Iterator[Profile]:
    """Time every operation of this context, forward and backward, and every kernel. `print` what the context gives.

        with mr.profile() as p:
            model.loss(batch).backward()
        print(p)                      # layer, operation, direction; then the kernels in them
        print(p.table("step"))        # and by time step, where operations run step by step

    A kernel is compiled at its first call ever: run once before, to see what it costs from then on. On a device the host waits before and
    after each operation, so that its time is its own: the sum is more than the same run takes unwatched, where both work side by side.
    """
    result = Profile()
    start = perf_counter()
    try:
        with monitored(result), registry.shown(lambda module: _Timed(result, module)):
            yield result
    finally:
        result.seconds = perf_counter() - start - result._watching
        result._settle()
