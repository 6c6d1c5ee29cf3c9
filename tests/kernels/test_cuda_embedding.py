"""The embedding's gradient on an emulated GPU: the reference's sums in the reference's order, so its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.cuda import launch
from minirnn.kernels.embedding import cupy_, numpy_
from tests import devices
from tests.kernels import on_device
from tests.kernels.on_device import EMULATED, SCHEDULES

pytestmark = EMULATED


@given(
    S=st.sampled_from([0, 1, 2, 15, 16, 17, 33, 70]),
    D=st.sampled_from([1, 31, 33, 257]),
    V=st.sampled_from([1, 2, 3, 40]),
    dtype=st.sampled_from([np.float32, np.float64]),
    ids_dtype=st.sampled_from([np.int32, np.int64]),
    schedule=SCHEDULES,
)
def test_it_is_the_reference_to_the_bit(S: int, D: int, V: int, dtype: Any, ids_dtype: Any, schedule: int) -> None:
    """Runs of one id are shorter than, as long as, and longer than what is fetched together."""
    rng = np.random.default_rng(S * V + D)
    dy, ids = rng.standard_normal((S, D)).astype(dtype), rng.integers(V, size=S, dtype=ids_dtype)
    there = on_device.put(dy, ids)
    with on_device.careful(schedule, *there):
        dw = cupy_.backward(*there, V)
    assert (dw.shape, dw.dtype) == ((V, D), dtype)
    np.testing.assert_array_equal(dw.get(), numpy_.backward(dy, ids, V))


def test_the_order_of_the_sum_is_that_of_the_rows() -> None:
    """1e8 + 1 - 1e8 is 0 in float32 in this order, and 1 in another."""
    dy = np.array([[1e8], [5], [1], [-1e8], [1]], np.float32)
    ids = np.array([3, 0, 3, 3, 3])
    np.testing.assert_array_equal(cupy_.backward(*on_device.put(dy, ids), 5).get()[:, 0], [5, 0, 0, 1, 0])


def test_a_nan_reaches_its_row_only() -> None:
    dy = np.ones((4, 3), np.float32)
    dy[2] = np.nan
    dw = cupy_.backward(*on_device.put(dy, np.array([0, 1, 2, 1])), 4).get()
    assert np.isnan(dw).all(axis=1).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(dw[[0, 1, 3]], np.array([[1], [2], [0]]) * np.ones((3, 3)))


def test_a_run_ends_where_the_places_do() -> None:
    """Whatever lies behind the ids in memory: here the same id again, and places that hold 100."""
    dy = np.concatenate([np.ones((3, 2)), np.full((5, 2), 100.0)])
    there, places, ids, dw = on_device.put(dy, np.arange(8), np.zeros(8, np.int32), np.zeros((1, 2)))
    kernel = launch.function(devices.module(), cupy_.UNIT, "embedding_backward", np.float64)
    kernel((3, 1), (32,), (there, places, ids, dw, np.int32(3), np.int32(2)))
    np.testing.assert_array_equal(dw.get(), [[3, 3]])


def test_views_are_read(rng: np.random.Generator) -> None:
    dy, ids = rng.standard_normal((12, 40)), rng.integers(5, size=40)
    there = on_device.put(dy, ids)
    got = cupy_.backward(there[0].T[::2], there[1][::2], 5).get()
    np.testing.assert_array_equal(got, numpy_.backward(dy.T[::2], ids[::2], 5))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_summed_in_float32(name: str, rng: np.random.Generator) -> None:
    """300 times 1 is 256 in bfloat16 when each sum is rounded; here it is rounded once, at the end."""
    dy = np.concatenate([np.ones((300, 2)), rng.standard_normal((30, 2))]).astype(on_device.dtype(name))
    ids = np.array([0] * 300 + [1] * 30)
    dw = cupy_.backward(*on_device.put(dy, ids), 2).get()
    expected = numpy_.backward(dy.astype(np.float32), ids, 2)
    assert dw.dtype == dy.dtype
    np.testing.assert_array_equal(dw, expected.astype(dy.dtype))
