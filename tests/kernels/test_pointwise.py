"""exp, tanh and sigmoid of Numba loops against the same functions in extended precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the functions run inside Numba loops")

from minirnn.kernels import pointwise  # noqa: E402
from minirnn.kernels.vectors import at_most, lanes_of, load, store  # noqa: E402

EXACT: dict[str, Callable[[Any], Any]] = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
ULPS = {"exp": 2, "tanh": 4, "sigmoid": 4}  # what the docstrings promise


def over(name: str, vectors: bool = False) -> Any:
    """A function that sets y[j] to that of x[j], number by number or a register at a time."""
    function = getattr(pointwise, name)

    @numba.njit
    def several(x: Any, y: Any, at: int, left: Any) -> None:
        store(y, at, function(load(x, at, left)), left)

    @numba.njit
    def registers(x: Any, y: Any) -> None:
        L = lanes_of(x)
        for j in range(0, len(x), L):
            if j + L <= len(x):
                several(x, y, j, None)
            else:
                several(x, y, j, len(x) - j)

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def loop(x: Any, y: Any) -> None:
        for j in range(x.shape[0]):
            y[j] = function(x[j])

    return registers if vectors else loop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT)
def test_accuracy(name: str, dtype: Any) -> None:
    limit = 87 if dtype is np.float32 else 708  # where exp is a normal number
    x = np.concatenate(
        [np.linspace(-limit, limit, 200_001), np.linspace(-10, 10, 100_001), np.geomspace(1e-30, 1, 5001), -np.geomspace(1e-30, 1, 5001)]
    ).astype(dtype)
    y = np.empty_like(x)
    over(name)(x, y)
    exact = EXACT[name](x.astype(np.longdouble))
    error = np.abs(y - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert error.max() <= ULPS[name], x[error.argmax()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "at_infinity", "at_minus_infinity"), [("exp", np.inf, 0.0), ("tanh", 1.0, -1.0), ("sigmoid", 1.0, 0.0)])
def test_saturation_and_nan(name: str, at_infinity: float, at_minus_infinity: float, dtype: Any) -> None:
    x = np.array([np.inf, 1e30, 1000, -np.inf, -1e30, -1000, np.nan, 0], dtype)
    y = np.empty_like(x)
    over(name)(x, y)
    np.testing.assert_array_equal(y[:3], dtype(at_infinity))
    np.testing.assert_allclose(y[3:6], at_minus_infinity, atol=2 * np.finfo(dtype).tiny)
    assert np.isnan(y[6])
    assert y[7] == EXACT[name](0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_registers_give_the_bits_that_numbers_give(name: str, dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal(1027).astype(dtype) * 5
    x[:4] = np.nan, np.inf, -np.inf, 0
    alone, together = np.empty_like(x), np.append(np.empty_like(x), dtype(7))
    over(name)(x, alone)
    over(name, vectors=True)(x, together[:-1])
    np.testing.assert_array_equal(together[:-1], alone)
    assert together[-1] == 7
    over(name, vectors=True)(x, x)
    np.testing.assert_array_equal(x, alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_of_registers(dtype: Any) -> None:
    @numba.njit
    def calculate(x: Any, y: Any, two: Any) -> None:
        a, b = load(x, 0, None), load(y, 0, None)
        store(y, 0, at_most(a, two - two, -a * two, two / (b - a) + two * a), None)

    L = lanes_of.py_func(np.empty(1, dtype))
    x, y = np.random.default_rng(0).standard_normal((2, L)).astype(dtype)
    x[0] = np.nan
    expected = np.where(x <= 0, -x * 2, 2 / (y - x) + 2 * x)
    calculate(x, y, dtype(2))
    np.testing.assert_allclose(y, expected, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", EXACT)
def test_a_loop_computes_several_at_once(name: str) -> None:
    """Otherwise a step of a recurrence takes many times as long, and no other test would tell."""
    loop = over(name)
    x = np.zeros(64, np.float32)
    loop(x, x.copy())
    (signature,) = loop.signatures
    assert "<4 x float>" in (llvm := loop.inspect_llvm(signature)) or "<8 x float>" in llvm or "<16 x float>" in llvm
