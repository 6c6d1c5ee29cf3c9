"""What the tests of fused operations on a GPU share: they run emulated, under schedules of different seeds, or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tests import devices

EMULATED = devices.NEEDED
SCHEDULES = st.sampled_from([0, 1, 2, 1009, 2**31])  # in order, in reverse, and drawn
ROWS = st.sampled_from([0, 1, 2, 5, 13])
COLUMNS = st.sampled_from([1, 2, 31, 32, 33, 127, 257, 521])  # of one warp, of several, and more than a block has threads


def dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)
    return np.dtype(name)


def put(*arrays: Any) -> list[Any]:
    """Copies of NumPy's arrays on the device."""
    return [devices.module().array(array) for array in arrays]


@contextmanager
def careful(seed: int, *arrays: Any) -> Iterator[None]:
    """Inside, threads run in the order of a seed. Afterwards, nothing has waited for the device, and the arrays are as they were."""
    before = [array.get() for array in arrays]
    with devices.schedule(seed), devices.counting() as counts:
        yield
    assert not counts.synchronisations, counts.places
    assert not counts.atomics
    for array, then in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array.get(), then)
