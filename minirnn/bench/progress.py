"""How far a benchmark is: a bar with the time left on a terminal, a line every ten seconds elsewhere, nothing for what is over soon."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

QUIET_SECONDS = 2.0  # nothing is shown of what is over by then
LINE_SECONDS = 10.0  # between two lines where there is no terminal


class Progress:
    """Work of `total` units, in whichever unit; `quiet` shows nothing.

    with Progress("bench lstm", total=60) as progress:
        progress.advance(1, "numba, (20, 16, 64, 64)")
    """

    def __init__(self, what: str, total: float, quiet: bool = False) -> None:
        self.what, self.total, self.quiet = what, total, quiet
        self.done = 0.0
        self.began = self.shown = time.perf_counter()
        self.bars: Any = None
        self.bar: Any = None

    def advance(self, units: float, now: str = "") -> None:
        """`units` more are done; `now` says at what."""
        self.done = min(self.total, self.done + units)
        if self.quiet or time.perf_counter() - self.began < QUIET_SECONDS:
            return
        text = f"{self._left()}  {now}"
        if sys.stderr.isatty():
            self._live().update(self.bar, completed=self.done, text=text)
        elif time.perf_counter() - self.shown >= LINE_SECONDS:
            self.shown = time.perf_counter()
            print(f"{self.what}: {100 * self.done / self.total:.0f} %  {text}", file=sys.stderr, flush=True)

    def hide(self) -> None:
        """Make room for what is printed; the next `advance` shows it again."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def __enter__(self) -> Self:
        self.began = self.shown = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hide()

    def _left(self) -> str:
        seconds = (time.perf_counter() - self.began) * (self.total / max(self.done, 1e-9) - 1)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def _live(self) -> Any:
        if self.bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn(self.what), BarColumn(bar_width=24), TextColumn("{task.fields[text]}", markup=False))
            self.bars = Bars(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)
            self.bar = self.bars.add_task("", total=self.total, text="")
            self.bars.start()
        return self.bars
