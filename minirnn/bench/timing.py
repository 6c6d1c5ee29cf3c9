"""Who is timed takes turns, so that whatever else the machine does meets all; and what is said about the times.

A turn is a few calls in a row of one contestant, and gives seconds per call. A round is one turn of each; every other round goes
backwards, so that a drift of the machine favours nobody. Two contestants are compared round by round: the ratio of two neighbouring
turns is less disturbed than that of two medians.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

FILL = 0.03  # seconds of a turn that count, and as many before them that do not
LONG = 0.2  # seconds of a call that needs no other one before it
LOOK = 0.002  # seconds between two looks at whether a process has settled
SETTLE = 0.2  # seconds after which it is waited for no longer
THREADS = Path("/proc/self/task")  # where Linux tells of each thread of a process what it does


class Summary(NamedTuple):
    """Median, quartiles and extremes."""

    median: float
    lower: float
    upper: float
    least: float
    most: float


def turn(run: Callable[[], Any], fill: float = FILL, long: float = LONG) -> float:
    """Seconds of one call: the median of as many as take `fill` seconds, after as many that warm up; what takes `long` is called once.

    Threads that have slept begin on one core, and take some 10 ms to find theirs: that is no part of a loop that runs on and on. Returns
    when this process has settled.
    """
    spent = taken = _seconds(run)
    if taken < long:
        while spent < fill:
            spent += _seconds(run)
        times: list[float] = []
        while sum(times) < fill:
            times.append(_seconds(run))
        taken = statistics.median(times)
    settle()
    return taken


def settle() -> None:
    """Wait until no other thread of this process works any longer.

    The threads of a BLAS spin after a product in the hope of another one (OpenBLAS's for 60 ms), and would take a core from the one whose
    turn is next. Where the system does not tell, this waits as long as it ever would.
    """
    for _ in range(round(SETTLE / LOOK)):
        time.sleep(LOOK)
        if not _working():
            return


def _working() -> bool:
    """Whether a thread of this process other than the one that asks runs, or wants to."""
    if not THREADS.is_dir():
        return True
    for thread in THREADS.iterdir():
        with suppress(OSError):  # it has ended
            state = (thread / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            if state == "R" and int(thread.name) != threading.get_native_id():
                return True
    return False


def interleave(
    turns: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1, after: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, by name, in each of `rounds` rounds. A turn gives seconds, here (`turn`) or in a worker.

    The rounds of `warm_up` come first and do not count; `after(name)` is called after every turn.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(-warm_up, rounds):
        for name in names if number % 2 == 0 else reversed(names):
            taken = turns[name]()
            if number >= 0:
                times[name].append(taken)
            after(name)
    return times


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value. A quartile between two values is interpolated."""
    if len(values) == 1:
        return Summary(*[values[0]] * 5)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, lower, upper, min(values), max(values))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Their time over ours, round by round: 2 says that ours takes half as long."""
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
