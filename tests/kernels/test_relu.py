"""The rectifier and its gradient: however x and dy lie in memory, whatever is in them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.relu import numpy_

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.relu import numba_cpu

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every other": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "one for all": lambda x: np.broadcast_to(x[:1, :, :1], x.shape),
}


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("of_dy", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (1, 1, 1, 1), (0, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_it_is_its_definition(kernel: Any, of_x: str, of_dy: str, shape: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, dy = (LAYOUTS[how](rng.standard_normal(shape).astype(dtype)) for how in (of_x, of_dy))
    before = x.copy(), dy.copy()
    y, dx = kernel.forward(x), kernel.backward(dy, x)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))
    for now, then in zip((x, dy), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
def test_what_is_not_finite(kernel: Any) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    np.testing.assert_array_equal(kernel.forward(x), [np.nan, np.inf, 0, 0, 0])
    np.testing.assert_array_equal(kernel.backward(np.ones(5), x), [0, 1, 0, 0, 0])
