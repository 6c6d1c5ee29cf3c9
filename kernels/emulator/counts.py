"""What a program asked of the emulated GPU, counted: launches, operations, copies, and every time that the host waited for the device.

with stand_in.counting() as counts:
    train_one_step()
assert not counts.synchronisations, counts.places
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

_OURS = __name__.rpartition(".")[0]


@dataclass
class Counts:
    launches: int = 0  # of kernels from RawModule and RawKernel
    operations: int = 0  # array functions and operators: at least one of CuPy's own kernels each
    atomics: int = 0  # operations that add floats atomically on a GPU, so that their sum depends on the schedule
    synchronisations: int = 0  # the host waited until the device was done
    to_device: int = 0  # copies from the host's memory
    to_device_bytes: int = 0
    to_host: int = 0  # copies into the host's memory; each of them is a synchronisation as well
    to_host_bytes: int = 0
    places: list[str] = field(default_factory=list)  # of the synchronisations and the copies: "float() at model.py:12"


class Launch(NamedTuple):
    """One launch, as `log` keeps it."""

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_mem: int
    cooperative: bool


log: deque[Launch] = deque(maxlen=10_000)
_counting: list[Counts] = []


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens inside; may be nested."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting[:] = [other for other in _counting if other is not counts]


def operation() -> None:
    for counts in _counting:
        counts.operations += 1


def atomic_operation() -> None:
    for counts in _counting:
        counts.atomics += 1


def launched(launch: Launch) -> None:
    log.append(launch)
    for counts in _counting:
        counts.launches += 1


def synchronised(why: str) -> None:
    for counts in _counting:
        counts.synchronisations += 1
        counts.places.append(f"{why} at {_caller()}")


def copied_to_device(nbytes: int, why: str) -> None:
    for counts in _counting:
        counts.to_device += 1
        counts.to_device_bytes += nbytes
        counts.places.append(f"{why} at {_caller()}")


def copied_to_host(nbytes: int, why: str) -> None:
    synchronised(why)
    for counts in _counting:
        counts.to_host += 1
        counts.to_host_bytes += nbytes


def _caller() -> str:
    """The line outside of the emulator that is to blame."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_globals.get("__name__", "").startswith((_OURS, "numpy.")) or frame.f_code.co_filename.startswith("<")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
