"""The sum of squares against exact sums, however long, wherever it lies."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from minirnn.kernels import workers
from minirnn.kernels.squares import numpy_

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.squares import numba_cpu

LENGTHS = [0, 1, 7, numba_cpu.BLOCK, 3 * numba_cpu.BLOCK + 5]


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_exact_sum(kernel: Any, size: int, dtype: Any) -> None:
    x = np.random.default_rng(size).standard_normal(2 * size).astype(dtype)[::2]
    exact = math.fsum(float(v) ** 2 for v in x)
    # all terms have one sign: each of at most BLOCK additions in a row errs by half a unit of the sum, and errors add up like a random walk
    assert kernel.total([x]) == pytest.approx(exact, rel=float(np.finfo(dtype).eps) * math.sqrt(numba_cpu.BLOCK))
    assert kernel.total([x.reshape(-1, 1).T]) == kernel.total([x])


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
def test_of_many_it_is_the_sum_of_each(kernel: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in [(3, 5), (), (0, 4), numba_cpu.BLOCK + 1, (2, 3, 4)]]
    arrays[1] = np.array(arrays[1])
    assert kernel.total(arrays) == pytest.approx(math.fsum(v**2 for x in arrays for v in x.flat), rel=1e-13)
    assert kernel.total([]) == 0


def test_the_number_of_threads_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(5 * numba_cpu.BLOCK + 3).astype(np.float32)
    found = set()
    for threads in (1, 2, 3):
        monkeypatch.setattr(workers, "groups", lambda N, operations, threads=threads: threads)
        found.add(numba_cpu.total([x[:9], x[:0], x[9:]]))
    assert len(found) == 1


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_seen(kernel: Any, bad: float) -> None:
    x = np.ones(1000, np.float32)
    x[700] = bad
    assert not math.isfinite(kernel.total([x[:5], x]))
