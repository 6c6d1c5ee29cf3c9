"""Tier 5: every planted bug must be found, and no harmless change may be.

A change runs on the cases of its kernel: in the emulator first, which takes seconds, then under the sanitizers, until something finds it. A
harmless one goes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from minirnn.kernels.cuda import source
from minirnn.kernels.registry import CELLS
from minirnn.kernels.verification import suites
from minirnn.kernels.verification.cases import Case
from minirnn.kernels.verification.planted.change import Change, Stale
from minirnn.kernels.verification.process import ADDRESS, PLAIN, THREAD, Finding, Workers

T = TypeVar("T")
R = TypeVar("R")
STAGES = ((PLAIN, (2, 0, 1, 3)), (ADDRESS, (2,)), (THREAD, (2,)))  # 0 and 1 are the ascending and the descending order
LIMIT = 120.0  # seconds: a planted bug may make a kernel run for ever


@dataclass(frozen=True)
class Verdict:
    """What became of a change. `finding`: by which it was found, None if by nothing."""

    change: Change
    finding: Finding | None
    seconds: float

    @property
    def right(self) -> bool:
        """A bug was found by a check, a harmless change by none. A worker that broke proves nothing."""
        if self.finding is None:
            return self.change.harmless
        return not self.change.harmless and self.finding.by not in ("broken", "compiler", "stale")

    @property
    def fault(self) -> str:
        """What is wrong where something is."""
        if self.finding is None:
            return "survives every check"
        return f"harmless, but found by {self.finding}" if self.change.harmless else str(self.finding)


def cases_of(change: Change) -> list[Case]:
    """What runs the changed text."""
    if change.language == "numba-cuda":
        return list(suites.numba_cuda(change.kernel, change.dtype))
    if change.wide:
        return [suites.wide(change.kernel, change.dtype)]
    return list((suites.recurrence if change.kernel in CELLS else suites.operation)(change.kernel, change.dtype))


def try_out(change: Change, workers: Workers, stages: Sequence[tuple[str, Sequence[int]]] = STAGES) -> Verdict:
    """`stages`: sanitizers, and the seeds of the schedules that the change runs under with each of them."""
    try:
        instead = {change.file: change.applied(source.text, source.KERNELS)}
    except Stale as stale:
        return Verdict(change, Finding("stale", str(stale), None), 0)
    seconds, first = 0.0, None
    for sanitizer, seeds in stages:
        if sanitizer and change.language == "numba-cuda":
            break  # its engine checks bounds and races in every run
        outcome = workers.run(cases_of(change), seeds, sanitizer, instead, LIMIT)
        seconds += outcome.seconds
        if outcome.finding and outcome.finding.by in ("crash", "broken") and not sanitizer and change.language != "numba-cuda":
            first = outcome.finding
            continue  # memory may have been overwritten anywhere: the address sanitizer says where first
        if outcome.finding:
            return Verdict(change, outcome.finding, seconds)
    return Verdict(change, first, seconds)


def try_all(changes: Sequence[Change], workers: Workers, processes: int) -> Iterator[Verdict]:
    """The verdicts, as they come. The long ones begin first."""
    order = sorted(changes, key=lambda change: (not change.harmless, change.language != "numba-cuda"))
    yield from in_parallel(lambda change: try_out(change, workers), order, workers, processes)


def in_parallel(function: Callable[[T], R], items: Iterable[T], workers: Workers, processes: int) -> Iterator[R]:
    """function(item) for every item, in so many threads; results as they come. Ends the workers' processes if it is left early."""
    with ThreadPoolExecutor(processes) as pool:
        left: set[Future[R]] = {pool.submit(function, item) for item in items}
        try:
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            for future in left:
                future.cancel()
            workers.stop()
            raise
