"""Convolution: the reference against its definition, number by number; the fused kernel against the reference."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn.kernels import workers
from minirnn.kernels.conv import numpy_
from minirnn.kernels.conv.numpy_ import Geometry

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.conv import numba_cpu

Array = Any
NAMES = ("y", "dx", "dw", "db")
ALL = (True, True, True)


def draw(N: int, C: int, F: int, window: Any, image: Any, geometry: Geometry, dtype: Any = np.float64, seed: int = 0) -> list[Array]:
    """x (N, C, H, W), w (F, C, U, V), b (F,), dy (N, F, P, Q)"""
    rng = np.random.default_rng(seed)
    shapes = ((N, C, *image), (F, C, *window), (F,), (N, F, *geometry.places(image, window)))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def both_ways(kernel: Any, x: Array, w: Array, b: Array, dy: Array, geometry: Geometry) -> tuple[Array, ...]:
    y, kept = kernel.forward(x, w, b, geometry)
    return (y, *kernel.backward(dy, w, kept, geometry, x.shape[2:], ALL))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def problems(draw_: st.DrawFn, most: int) -> tuple[Any, ...]:
    """Sizes of every kind: windows larger than their stride and smaller, padding larger than the window's edge, dilation."""
    window, stride, dilation = draw_(pairs), draw_(pairs), draw_(pairs)
    padding = draw_(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(window, padding, dilation, strict=True)]
    image = tuple(n + draw_(st.integers(0, most)) for n in least)
    N, C, F = draw_(st.integers(0, 3)), draw_(st.integers(1, 5 * most)), draw_(st.integers(1, 9 * most))
    return N, C, F, window, image, Geometry(stride, padding, dilation)


@given(problem=problems(2))
def test_the_reference_is_the_definition(problem: tuple[Any, ...]) -> None:
    _, _, _, (U, V), (H, W), geometry = problem
    x, w, b, dy = draw(*problem)
    y, dx, dw, db = both_ways(numpy_, x, w, b, dy, geometry)
    (s, r), (top, left), (d, e) = geometry
    expected, by_x, by_w = np.zeros(y.shape) + b[:, None, None], np.zeros(x.shape), np.zeros(w.shape)
    for p, q, u, v in np.ndindex(*y.shape[2:], U, V):
        i, j = s * p + d * u - top, r * q + e * v - left
        if 0 <= i < H and 0 <= j < W:
            expected[:, :, p, q] += x[:, :, i, j] @ w[:, :, u, v].T
            by_x[:, :, i, j] += dy[:, :, p, q] @ w[:, :, u, v]
            by_w[:, :, u, v] += dy[:, :, p, q].T @ x[:, :, i, j]
    for got, want in zip((y, dx, dw, db), (expected, by_x, by_w, dy.sum((0, 2, 3))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def agrees(found: tuple[Array, ...], expected: tuple[Array, ...], dtype: Any) -> None:
    """Sums of at most some thousand terms in another order: rounding adds up like a random walk."""
    tolerance = 1e-10 if dtype is np.float64 else 1e-5
    for name, got, want in zip(NAMES, found, expected, strict=True):
        assert (got.dtype, got.shape) == (dtype, want.shape), name
        assert np.abs(got - want).max(initial=0) <= tolerance * max(1.0, np.abs(want).max(initial=0)), name


@settings(max_examples=60)
@given(problem=problems(9), dtype=st.sampled_from([np.float64, np.float32]), last=st.booleans())
def test_the_fused_one_agrees_with_the_reference(problem: tuple[Any, ...], dtype: Any, last: bool) -> None:
    """`last`: x and dy lie in memory with their channels last, as the fused kernel itself gives them."""
    x, w, b, dy = draw(*problem, dtype=dtype)
    if last:
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy))
    agrees(both_ways(numba_cpu, x, w, b, dy, problem[-1]), both_ways(numpy_, x, w, b, dy, problem[-1]), dtype)


SIZES = (3, 5, 70, (3, 3), (13, 11), Geometry((2, 1), (1, 1)))  # places that fill more than a block; channels that fill more than a panel


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_the_number_of_threads_makes_no_difference(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw(*SIZES, dtype=dtype)
    before = [a.copy() for a in problem]
    found = both_ways(numba_cpu, *problem, SIZES[-1])
    agrees(found, both_ways(numpy_, *problem, SIZES[-1]), dtype)
    monkeypatch.setattr(workers, "groups", lambda N, operations: 1)
    for got, alone in zip(found, both_ways(numba_cpu, *problem, SIZES[-1]), strict=True):
        np.testing.assert_array_equal(got, alone)
    for a, then in zip(problem, before, strict=True):
        np.testing.assert_array_equal(a, then)


def test_what_else_is_in_the_batch_changes_no_bit() -> None:
    x, w, b, dy = draw(*SIZES, dtype=np.float32)
    y, dx, _, _ = both_ways(numba_cpu, x, w, b, dy, SIZES[-1])
    alone = both_ways(numba_cpu, x[1:2], w, b, dy[1:2], SIZES[-1])
    np.testing.assert_array_equal(y[1:2], alone[0])
    np.testing.assert_array_equal(dx[1:2], alone[1])


@pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
def test_a_nan_stays_in_its_image(kernel: Any) -> None:
    x, w, b, dy = draw(*SIZES)
    x[1, 2, 3, 4] = dy[1, 5, 2, 2] = np.nan
    y, dx, _, _ = both_ways(kernel, x, w, b, dy, SIZES[-1])
    assert np.isnan(y[1]).any()
    assert np.isnan(dx[1]).any()
    assert np.isfinite(y[[0, 2]]).all()
    assert np.isfinite(dx[[0, 2]]).all()


def test_only_what_is_wanted_is_computed() -> None:
    x, w, b, dy = draw(*SIZES)
    everything = both_ways(numba_cpu, x, w, b, dy, SIZES[-1])[1:]
    for kernel in (numpy_, numba_cpu):
        _, kept = kernel.forward(x, w, None, SIZES[-1])
        for needs in ((True, False, False), (False, True, False), (False, False, False)):
            found = kernel.backward(dy, w, kept, SIZES[-1], x.shape[2:], needs)
            for needed, got, want in zip(needs, found, everything, strict=True):
                if needed:
                    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_a_wrong_geometry_would_be_noticed() -> None:
    """Stride, padding or dilation of the other axis, where the sizes happen to be the same."""
    sizes = (2, 2, 3, (2, 2), (6, 6))
    for right, wrong in (
        (Geometry((1, 1), (1, 0), (2, 1)), Geometry((1, 1), (1, 0), (1, 1))),
        (Geometry((2, 2), (0, 0), (1, 1)), Geometry((2, 2), (0, 0), (2, 2))),
    ):
        problem = draw(*sizes, right)
        problem[3] = np.ones((2, 3, 3, 3))
        found = numba_cpu.forward(*problem[:3], wrong)[0][:, :, :2, :2]
        with pytest.raises(AssertionError):
            agrees((found,) * 4, (numpy_.forward(*problem[:3], right)[0][:, :, :2, :2],) * 4, np.float64)
