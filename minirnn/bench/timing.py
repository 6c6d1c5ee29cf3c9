"""Who is timed takes turns, so that whatever else the machine does meets all; and what is said about the times.

A turn is a few calls in a row of one contestant, and gives seconds per call. A round is one turn of each; every other round goes
backwards, so that a drift of the machine favours nobody. Two contestants are compared round by round: the ratio of two neighbouring
turns is less disturbed than that of two medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

FILL = 0.02  # seconds of a turn
SETTLE = 0.03  # seconds until the threads of a BLAS, which spin after a product in the hope of another one, have gone to sleep


class Summary(NamedTuple):
    """Median, quartiles and extremes."""

    median: float
    lower: float
    upper: float
    least: float
    most: float


class Contestant(NamedTuple):
    """Who takes turns: `turn()` gives seconds per call; `process` tells where, anything that can be compared."""

    turn: Callable[[], float]
    process: Any = None


def turn(run: Callable[[], Any], fill: float = FILL) -> float:
    """Seconds of one call: the median of as many as take `fill` seconds, after one that warms up; what takes longer is called once."""
    taken = _seconds(run)
    if taken >= fill:
        return taken
    times: list[float] = []
    while sum(times) < fill:
        times.append(_seconds(run))
    return statistics.median(times)


def interleave(
    contestants: Mapping[str, Contestant], rounds: int, *, warm_up: int = 1, after: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, by name, in each of `rounds` rounds; `after(name)` is called after every turn.

    The rounds of `warm_up` come first and do not count. Before a contestant of another process begins, that of the last one settles.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    last = None
    for number in range(-warm_up, rounds):
        for name in names if number % 2 == 0 else reversed(names):
            contestant = contestants[name]
            if last is not None and contestant.process != last.process:
                time.sleep(SETTLE)
            last = contestant
            taken = contestant.turn()
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
