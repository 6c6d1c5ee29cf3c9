"""Max pooling: every implementation against a search by hand, where numbers tie and where there are none."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import workers
from minirnn.kernels.max_pool import numpy_

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.max_pool import numba_cpu

Array = Any
KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Any, Any, Any]:
    """x (N, C, H, W) with ties, infinities and NaN; the window, its stride and its padding."""
    size, stride = draw(pairs), draw(pairs)
    padding = tuple(draw(st.integers(0, k // 2)) for k in size)
    image = [max(1, k - 2 * p) + draw(st.integers(0, 4)) for k, p in zip(size, padding, strict=True)]
    N, C = draw(st.integers(0, 3)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = [-1.0, 0.0, 2.0, 3.0, -np.inf, np.inf, np.nan] if draw(st.booleans()) else rng.standard_normal(500)
    x = rng.choice(values, (N, C, *image)).astype(draw(st.sampled_from([np.float32, np.float64])))
    return x, size, stride, padding


def by_hand(x: Array, size: Any, stride: Any, padding: Any) -> tuple[Array, Array]:
    """The first largest pixel of each window, in the order in which one reads; a NaN is the largest of all."""
    (N, C, H, W), (U, V) = x.shape, size
    P, Q = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip((H, W), size, stride, padding, strict=True))
    y, winners = np.empty((N, C, P, Q), x.dtype), np.empty((N, C, P, Q), np.int64)
    for n, c, p, q in np.ndindex(N, C, P, Q):
        seen = [(stride[0] * p + u - padding[0], stride[1] * q + v - padding[1]) for u in range(U) for v in range(V)]
        inside = [(h, w) for h, w in seen if 0 <= h < H and 0 <= w < W]
        h, w = max(inside, key=lambda at: (np.isnan(x[n, c, *at]), 0 if np.isnan(x[n, c, *at]) else x[n, c, *at]))
        y[n, c, p, q], winners[n, c, p, q] = x[n, c, h, w], h * W + w
    return y, winners


@KERNELS
@given(problem=problems())
def test_it_is_the_first_largest(kernel: Any, problem: tuple[Array, Any, Any, Any]) -> None:
    x, _, _, _ = problem
    y, winners = kernel.forward(*problem)
    expected, places = by_hand(*problem)
    np.testing.assert_array_equal(y, expected)
    decided = ~np.isneginf(expected)  # where all are -inf, it does not matter which wins
    np.testing.assert_array_equal(winners[decided], places[decided])
    dy = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
    dx = kernel.backward(dy, winners, x.shape[2:])
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    summed = np.zeros(x.shape)
    for n, c, p, q in np.ndindex(*y.shape):
        summed[n, c].flat[winners[n, c, p, q]] += dy[n, c, p, q]
    np.testing.assert_allclose(dx, summed, atol=1e-5 if x.dtype == np.float32 else 1e-13)


@pytest.mark.usefixtures("groups")
def test_the_number_of_threads_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((5, 7, 6, 9)).astype(np.float32)
    y, winners = numba_cpu.forward(x, (3, 2), (2, 1), (1, 0))
    dx = numba_cpu.backward(y, winners, (6, 9))
    monkeypatch.setattr(workers, "groups", lambda N, operations: 1)
    np.testing.assert_array_equal(numba_cpu.forward(x, (3, 2), (2, 1), (1, 0))[1], winners)
    np.testing.assert_array_equal(numba_cpu.backward(y, winners, (6, 9)), dx)
    np.testing.assert_allclose(numpy_.backward(y, winners, (6, 9)), dx, atol=1e-5)
