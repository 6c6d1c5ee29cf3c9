"""Counts of arrays: known ones, and those of kernels per time step."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minirnn import nn
from minirnn.bench.allocations import count
from minirnn.tensor import Tensor

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or not sys.platform.startswith("linux"), reason="counted on Linux, in CPython"
)


def test_every_array_counts_and_views_do_not() -> None:
    def run() -> None:
        for size in (1, 10, 10_000):
            np.empty(size)[1:].reshape(-1)

    assert count(run) == 3
    assert count(lambda: None) == 0


def test_arrays_that_were_counted_live_on() -> None:
    kept: list[np.ndarray] = []
    assert count(lambda: kept.append(np.full(1000, 7.0))) is not None
    grown = np.resize(kept.pop(), 3000)
    assert grown.sum() == 21000


def test_the_usual_allocator_comes_back_after_an_error() -> None:
    def fails() -> None:
        raise KeyError

    before = np._core.multiarray.get_handler_name()
    with pytest.raises(KeyError):
        count(fails)
    assert np._core.multiarray.get_handler_name() == before


def test_compiled_functions_count() -> None:
    numba = pytest.importorskip("numba")

    @numba.njit
    def run(n: int) -> float:
        total = 0.0
        for _ in range(n):
            total += np.zeros(3)[0]
        return total

    run(1)
    assert count(lambda: run(20)) == 20


def test_the_numpy_kernel_allocates_in_every_step() -> None:
    def arrays(T: int) -> int:
        layer = nn.LSTM(3, 4, kernel="numpy", rng=0)
        x = Tensor(np.ones((T, 2, 3), np.float32))
        layer(x)  # what is laid out once for batches of this shape
        found = count(lambda: layer(x))
        assert found is not None
        return found

    slopes = {(arrays(2 * T) - arrays(T)) / T for T in (4, 8)}
    assert len(slopes) == 1
    assert slopes.pop() >= 10
