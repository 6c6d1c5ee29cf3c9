"""Adam and AdamW on an emulated GPU against the reference, and with a scale that the device decided on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.adam import cupy_, numpy_
from tests.kernels import on_device
from tests.kernels.on_device import EMULATED, SCHEDULES

pytestmark = EMULATED
PLAIN = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}


def draw(shape: Any, dtype: Any, seed: int = 0) -> list[Any]:
    """param, grad, m, v"""
    rng = np.random.default_rng(seed)
    param, grad, m, v = (np.array(rng.standard_normal(shape), dtype) for _ in range(4))
    return [param, grad, m, np.square(v, out=v)]


@given(
    shape=st.sampled_from([(), (1,), (0, 3), (7, 11), (255,), (256,), (257,), (3, 5, 67)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    decoupled=st.booleans(),
    weight_decay=st.sampled_from([0.0, 0.3]),
    t=st.integers(1, 1000),
    scale=st.floats(1e-3, 10),
    on_the_device=st.sampled_from([None, np.float32, np.float64]),
    schedule=SCHEDULES,
)
def test_it_is_the_reference(
    shape: tuple[int, ...],
    dtype: Any,
    decoupled: bool,
    weight_decay: float,
    t: int,
    scale: float,
    on_the_device: Any,
    schedule: int,
) -> None:
    expected = draw(shape, dtype, t)
    there = on_device.put(*expected)
    options = {**PLAIN, "weight_decay": weight_decay, "decoupled": decoupled, "t": t}
    if on_the_device is not None:
        scale = float(on_the_device(scale))
    given_scale = scale if on_the_device is None else on_device.put(on_the_device(scale))[0]
    with on_device.careful(schedule, there[1]):
        cupy_.step(*there, **options, scale=given_scale)
    numpy_.step(*expected, **options, scale=scale)
    for got, want in zip(there, expected, strict=True):
        # each entry is a handful of roundings of numbers no larger than those that enter
        np.testing.assert_allclose(got.get(), want, rtol=16 * np.finfo(dtype).eps, atol=16 * np.finfo(dtype).eps * max(1, scale**2))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scale_on_the_device_that_is_not_finite_changes_nothing(scale: float, dtype: Any) -> None:
    before = draw(300, dtype)
    there = on_device.put(*before)
    with on_device.careful(3, *there):
        cupy_.step(*there, **PLAIN, t=2, scale=on_device.put(dtype(scale))[0])
        cupy_.step(*there, **{**PLAIN, "weight_decay": 0.1, "decoupled": True}, t=3, scale=on_device.put(dtype(scale))[0])
    for got, want in zip(there, before, strict=True):
        np.testing.assert_array_equal(got.get(), want)


def test_a_number_that_is_not_finite_is_seen_as_numpy_shows_it() -> None:
    there = on_device.put(*draw(5, np.float32))
    cupy_.step(*there, **PLAIN, t=1, scale=float("nan"))
    assert np.isnan(there[0].get()).all()


def test_a_nan_stays_in_its_element() -> None:
    arrays = draw(100, np.float32)
    arrays[1][41] = np.nan
    there = on_device.put(*arrays)
    cupy_.step(*there, **PLAIN, t=1)
    for a in there:
        assert np.flatnonzero(np.isnan(a.get())).tolist() == [41]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_rounded_once(name: str) -> None:
    arrays = [a.astype(on_device.dtype(name)) for a in draw(40, np.float32)]
    there = on_device.put(*arrays)
    expected = [a.astype(np.float32) for a in arrays]
    cupy_.step(*there, **PLAIN, t=3)
    numpy_.step(*expected, **PLAIN, t=3)
    half_a_unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    for got, want in zip(there, expected, strict=True):
        np.testing.assert_allclose(got.get().astype(np.float32), want, rtol=half_a_unit * 1.01, atol=2.0**-24)


def test_arrays_that_cannot_be_updated_in_place_are_refused() -> None:
    there = on_device.put(*draw((4, 6), np.float32))
    with pytest.raises(ValueError, match="adam: grad must be C-contiguous"):
        cupy_.step(there[0], on_device.put(np.zeros((6, 4), np.float32))[0].T, *there[2:], **PLAIN, t=1)
    with pytest.raises(ValueError, match=r"adam: m is float64 \(4, 6\) and param is float32 \(4, 6\)"):
        cupy_.step(*there[:2], on_device.put(np.zeros((4, 6)))[0], there[3], **PLAIN, t=1)
