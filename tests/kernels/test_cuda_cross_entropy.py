"""Cross entropy on an emulated GPU against the reference, for ordinary logits and for those that are not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.cross_entropy import cupy_, numpy_
from tests.kernels import on_device
from tests.kernels.on_device import COLUMNS, EMULATED, ROWS, SCHEDULES

pytestmark = EMULATED
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])


def draw(S: int, V: int, seed: int = 0, dtype: Any = np.float64) -> list[Any]:
    """logits (S, V), targets (S,), dloss (S,)"""
    rng = np.random.default_rng(seed)
    return [(3 * rng.standard_normal((S, V))).astype(dtype), rng.integers(V, size=S), rng.standard_normal(S).astype(dtype)]


@given(
    S=ROWS,
    V=COLUMNS,
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    dtype=st.sampled_from([np.float32, np.float64]),
    ids_dtype=st.sampled_from([np.int32, np.int64]),
    schedule=SCHEDULES,
)
def test_it_is_the_reference(S: int, V: int, smoothing: float, dtype: Any, ids_dtype: Any, schedule: int) -> None:
    logits, targets, dloss = draw(S, V, dtype=dtype)
    there = on_device.put(logits, targets.astype(ids_dtype), dloss)
    with on_device.careful(schedule, *there):
        loss, lse = cupy_.forward(*there[:2], smoothing)
        dlogits = cupy_.backward(*there[:2], lse, there[2], smoothing)
    expected, expected_lse = numpy_.forward(logits, targets, smoothing)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype is np.float32 else 1e-12}  # of numbers of size 10
    for got, want in ((loss, expected), (lse, expected_lse), (dlogits, numpy_.backward(logits, targets, expected_lse, dloss, smoothing))):
        assert (got.dtype, got.shape) == (dtype, want.shape)
        np.testing.assert_allclose(got.get(), want, **tolerance)


@SMOOTHING
@pytest.mark.parametrize("V", [20, 600])
def test_a_row_gets_the_same_bits_alone_and_under_every_schedule(smoothing: float, V: int) -> None:
    logits, targets, dloss = draw(4, V, dtype=np.float32)
    there = on_device.put(logits, targets, dloss)
    runs = []
    for schedule in (0, 1, 7):
        with on_device.careful(schedule, *there):
            loss, lse = cupy_.forward(*there[:2], smoothing)
            dlogits = cupy_.backward(*there[:2], lse, there[2], smoothing)
        runs.append([a.get() for a in (loss, lse, dlogits)])
    for run in runs[1:]:
        for got, first in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(got, first)
    row = slice(2, 3)
    loss, lse = cupy_.forward(there[0][row], there[1][row], smoothing)
    dlogits = cupy_.backward(there[0][row], there[1][row], lse, there[2][row], smoothing)
    for got, all_rows in zip((loss, lse, dlogits), runs[0], strict=True):
        np.testing.assert_array_equal(got.get(), all_rows[row])


@SMOOTHING
@pytest.mark.parametrize("V", [1, 33, 300])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_shows_as_nan_in_its_own_row(smoothing: float, V: int, bad: float, dtype: Any) -> None:
    columns = np.unique(np.linspace(0, V - 1, 6, dtype=int))
    clean, targets, dloss = draw(len(columns) + 2, V, dtype=dtype)
    logits, rows = clean.copy(), np.arange(1, len(columns) + 1)
    logits[rows, columns] = bad
    there = on_device.put(logits, targets, dloss)
    loss, lse = cupy_.forward(*there[:2], smoothing)
    dlogits = cupy_.backward(*there[:2], lse, there[2], smoothing).get()
    assert np.isnan(loss.get()[rows]).all()
    assert np.isnan(dlogits[rows, columns]).all()
    alone = cupy_.forward(*on_device.put(clean, targets), smoothing)
    for got, want in zip((loss, lse), alone, strict=True):
        np.testing.assert_array_equal(got.get()[[0, -1]], want.get()[[0, -1]])
    assert np.isfinite(dlogits[[0, -1]]).all()


@SMOOTHING
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_without_weight_gets_zeros(smoothing: float, bad: float) -> None:
    logits, targets, dloss = draw(3, 7)
    logits[1], dloss[1] = bad, 0
    there = on_device.put(logits, targets, dloss)
    _, lse = cupy_.forward(*there[:2], smoothing)
    dlogits = cupy_.backward(*there[:2], lse, there[2], smoothing).get()
    np.testing.assert_array_equal(dlogits[1], 0)
    assert dlogits[[0, 2]].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_class_that_is_ruled_out_has_probability_zero(dtype: Any) -> None:
    logits = np.array([[1, -np.inf, 2, -np.inf], [0, 0, -np.inf, 0]], dtype)
    there = on_device.put(logits, np.array([0, 2]), np.ones(2, dtype))
    loss, lse = cupy_.forward(*there[:2])
    assert loss.get()[0] == pytest.approx(math.log(1 + math.e), rel=1e-6)
    assert loss.get()[1] == np.inf
    np.testing.assert_array_equal(cupy_.backward(*there[:2], lse, there[2]).get()[0, [1, 3]], [0, 0])
    assert cupy_.forward(*there[:2], 0.1)[0].get().tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
def test_large_logits_neither_overflow_nor_underflow(size: float) -> None:
    there = on_device.put(np.array([[size, -size, 0], [-size, -size, -size]], np.float32), np.array([1, 0]), np.ones(2, np.float32))
    loss, lse = cupy_.forward(*there[:2])
    np.testing.assert_allclose(loss.get(), [2 * size, math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(cupy_.backward(*there[:2], lse, there[2]).get()[0], [1, -1, 0], atol=1e-6)
    low = on_device.put(np.full((1, 300), -size, np.float32), np.array([299]))  # several warps, none of which has a larger one
    np.testing.assert_allclose(cupy_.forward(*low)[0].get(), math.log(300), rtol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_rounded_once(name: str) -> None:
    """Everything is computed in float32 from what the arrays hold: a result is the float32 one, rounded."""
    logits, targets, dloss = draw(4, 50, dtype=np.float32)
    logits, dloss = logits.astype(on_device.dtype(name)), dloss.astype(on_device.dtype(name))
    there = on_device.put(logits, targets, dloss)
    loss, lse = cupy_.forward(*there[:2], 0.1)
    dlogits = cupy_.backward(*there[:2], lse, there[2], 0.1)
    wide = logits.astype(np.float32)
    expected, expected_lse = numpy_.forward(wide, targets, 0.1)
    wanted = numpy_.backward(wide, targets, expected_lse, dloss.astype(np.float32), 0.1)
    assert (loss.dtype, lse.dtype, dlogits.dtype) == (logits.dtype, np.float32, logits.dtype)
    half_a_unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    np.testing.assert_allclose(lse.get(), expected_lse, rtol=1e-5)
    np.testing.assert_allclose(loss.get().astype(np.float32), expected, rtol=half_a_unit * 1.01)
    np.testing.assert_allclose(dlogits.get().astype(np.float32), wanted, rtol=half_a_unit * 1.01, atol=1e-6)
