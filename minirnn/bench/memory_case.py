"""One training step whose memory is measured, the same for every library: `minirnn.bench.memory` has what for."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirnn.bench.peak import Peak, resident

Array = np.ndarray[Any, Any]
PARAMETERS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@dataclass(frozen=True)
class Case:
    """T steps of N sequences, D features in, H hidden units; a checkpoint every `segment` steps; the state is cut every `chunk` steps."""

    T: int
    N: int
    D: int
    H: int
    dtype: str
    segment: int
    chunk: int

    def draw(self) -> dict[str, Array]:
        """x (T, N, D), dy (T, N, H) and the parameters: the same numbers in every process."""
        rng = np.random.default_rng(0)
        shapes = {"x": (self.T, self.N, self.D), "dy": (self.T, self.N, self.H)}
        drawn = {name: rng.standard_normal(shape, np.float32).astype(self.dtype, copy=False) for name, shape in shapes.items()}
        for name, shape in zip(PARAMETERS, ((4 * self.H, self.D), (4 * self.H, self.H), (4 * self.H,), (4 * self.H,)), strict=True):
            drawn[name] = rng.uniform(-(self.H**-0.5), self.H**-0.5, shape).astype(self.dtype)
        return drawn

    def sizes(self, length: int) -> list[int]:
        """T cut into pieces of `length` steps, and what is left."""
        return [min(length, self.T - begin) for begin in range(0, self.T, length)]

    def pieces(self, length: int) -> Iterator[slice]:
        for begin in range(0, self.T, length):
            yield slice(begin, min(begin + length, self.T))


class Bytes:
    """Buffers that are alive at a moment, each counted once: `add(identity, size)`."""

    def __init__(self, but: Sequence[int] = ()) -> None:
        self.but = frozenset(but)
        self.found: dict[int, int] = {}

    def add(self, identity: int, size: int) -> None:
        if identity not in self.but:
            self.found[identity] = size

    def total(self) -> int:
        return sum(self.found.values())


Between = Callable[[Sequence[Any]], None]  # called with the outputs after each forward pass, before its backward pass
Step = Callable[[Between], Mapping[str, Any]]  # a training step without the update: the gradients by name


def rises(step: Step) -> dict[str, int | None]:
    """Bytes by which this process grows in one step: at most ("peak"), and between the passes ("between"). Call it in a fresh process.

    The step runs once before: what is loaded or compiled, or kept by a library for ever, as BLAS keeps its buffers, does not count.
    """
    step(lambda outputs: None)
    gc.collect()
    _return_freed()
    between: list[int] = []

    def measure(outputs: Sequence[Any]) -> None:
        now = resident()
        if now is not None and peak.before is not None:
            between.append(now - peak.before)

    peak = Peak()
    gradients = step(measure)
    most = peak.rise()
    del gradients
    return {"peak": most, "between": max(between, default=None)}


def _return_freed() -> None:
    """Give freed memory that the C library has kept back to the system: the step would use it before the process grows."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
