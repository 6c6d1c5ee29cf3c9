"""Who is told how training goes: a live line on a terminal, a line of text now and then elsewhere, nobody if nobody asks."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from minirnn.training.checkpoint import TrainingState

QUIET_SECONDS = 2.0  # nothing is shown of what is over by then
LINE_SECONDS = 10.0  # between two lines where there is no terminal
SMOOTHING = 0.95  # of the loss and the speed that are shown


class Progress(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def update(self, state: TrainingState, loss: float, norm: float, size: int, left: float | None) -> None:
        """After an update: the loss and the gradient's norm, the batch's size, and the seconds to go (None: unknown)."""

    def validating(self, state: TrainingState) -> None:
        """Before a validation."""

    def validated(self, state: TrainingState, scores: dict[str, float], best: bool) -> None:
        """After a validation."""


class Silent:
    """Tells nobody."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def update(self, state: TrainingState, loss: float, norm: float, size: int, left: float | None) -> None:
        return

    def validating(self, state: TrainingState) -> None:
        return

    def validated(self, state: TrainingState, scores: dict[str, float], best: bool) -> None:
        return


class _Meter(Silent):
    """What both displays measure: a smoothed loss and speed, and the time since the start."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.began = self.last = time.perf_counter()
        self.loss: float | None = None
        self.seconds = self.size = 0.0

    def __enter__(self) -> Self:
        self.began = self.last = time.perf_counter()
        return self

    def measure(self, loss: float, size: int) -> None:
        now = time.perf_counter()
        self.seconds = SMOOTHING * self.seconds + now - self.last
        self.size = SMOOTHING * self.size + size
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self.last = now

    def speed(self) -> float:
        return self.size / max(1e-9, self.seconds)

    def early(self) -> bool:
        return time.perf_counter() - self.began < QUIET_SECONDS

    def text(self, state: TrainingState, norm: float) -> str:
        return f"loss {self.loss:.3f}  gradient {norm:.2f}  {self.speed():,.0f} {self.unit}/s"


class Lines(_Meter):
    """A line on standard error every ten seconds and for every validation."""

    def __init__(self, unit: str) -> None:
        super().__init__(unit)
        self.printed = 0.0

    def update(self, state: TrainingState, loss: float, norm: float, size: int, left: float | None) -> None:
        self.measure(loss, size)
        now = time.perf_counter()
        if self.early() or now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        print(f"{_where(state)}  {self.text(state, norm)}{_left(left)}", file=sys.stderr, flush=True)

    def validated(self, state: TrainingState, scores: dict[str, float], best: bool) -> None:
        self.last = time.perf_counter()
        if not self.early():
            print(f"{_where(state)}  {_scores(scores)}{'  best so far' if best else ''}", file=sys.stderr, flush=True)


class Live(_Meter):
    """A bar that moves, and a line that stays for every validation, on a terminal."""

    def __init__(self, unit: str) -> None:
        super().__init__(unit)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.fields[where]}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self.bars = Bars(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)
        self.bar: Any = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def update(self, state: TrainingState, loss: float, norm: float, size: int, left: float | None) -> None:
        self.measure(loss, size)
        if self.early():
            return
        if self.bar is None:
            self.bars.start()
            self.bar = self.bars.add_task("", total=1.0, where="", text="")
        spent = 0.0 if left is None else state.elapsed / max(1e-9, state.elapsed + left)
        self.bars.update(self.bar, completed=spent, where=_where(state), text=self.text(state, norm) + _left(left))

    def validating(self, state: TrainingState) -> None:
        if self.bar is not None:
            self.bars.update(self.bar, where=_where(state), text="validating ...")

    def validated(self, state: TrainingState, scores: dict[str, float], best: bool) -> None:
        self.last = time.perf_counter()
        if not self.early():
            self.bars.console.print(f"{_where(state)}  {_scores(scores)}{'  best so far' if best else ''}", highlight=False, markup=False)


def make(unit: str, quiet: bool = False) -> Progress:
    """The display for where standard error goes."""
    if quiet:
        return Silent()
    return Live(unit) if sys.stderr.isatty() else Lines(unit)


def _where(state: TrainingState) -> str:
    return f"epoch {state.passes:5.2f}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"  {int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _scores(scores: dict[str, float]) -> str:
    return "validation  " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
