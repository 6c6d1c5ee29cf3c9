"""Group normalisation: the reference against sums by hand and a complex step; the fused kernel against the reference."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import workers
from minirnn.kernels.group_norm import numpy_

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.group_norm import numba_cpu

EPS = 1e-5
KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])


def draw(N: int, G: int, D: int, places: Any, seed: int = 0, dtype: Any = np.float64) -> list[Any]:
    """x (N, G D, *), weight (G D,), bias (G D,), dy (N, G D, *)"""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((N, G * D, *places), G * D, G * D, (N, G * D, *places))]


@KERNELS
def test_groups_are_standardised_as_exact_sums_say(kernel: Any) -> None:
    x, weight, bias, _ = draw(2, 3, 2, (4, 5))
    y, mean, r = kernel.forward(x, 3, weight, bias, EPS)
    for n, g in np.ndindex(2, 3):
        members = x[n, 2 * g : 2 * g + 2]
        centre = math.fsum(members.flat) / 40
        inverse = 1 / math.sqrt(math.fsum((v - centre) ** 2 for v in members.flat) / 40 + EPS)
        assert mean[n, g] == pytest.approx(centre, rel=1e-12, abs=1e-15)
        assert r[n, g] == pytest.approx(inverse, rel=1e-13)
        for c in (2 * g, 2 * g + 1):
            np.testing.assert_allclose(y[n, c], (x[n, c] - centre) * inverse * weight[c] + bias[c], rtol=1e-12, atol=1e-14)


@KERNELS
def test_the_gradient_is_that_of_a_complex_step(kernel: Any) -> None:
    x, weight, bias, dy = draw(3, 2, 3, (5,))
    direction = draw(3, 2, 3, (5,), seed=1)[:3]
    _, mean, r = kernel.forward(x, 2, weight, bias, EPS)
    slope = sum((g * d).sum() for g, d in zip(kernel.backward(dy, x, weight, mean, r), direction, strict=True))
    moved = [a + 1e-20j * d for a, d in zip((x, weight, bias), direction, strict=True)]
    assert slope == pytest.approx((numpy_.forward(moved[0], 2, *moved[1:], EPS)[0] * dy).sum().imag / 1e-20, rel=1e-10)
    wrong = 1.001 * kernel.backward(dy, x, weight, mean, r)[0]
    assert (wrong * direction[0]).sum() != pytest.approx((kernel.backward(dy, x, weight, mean, r)[0] * direction[0]).sum(), rel=1e-5)


@given(
    N=st.integers(0, 4),
    G=st.integers(1, 3),
    D=st.integers(1, 9),
    places=st.sampled_from([(), (1,), (7,), (3, 5), (9, 16)]),
    affine=st.booleans(),
    last=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_fused_one_agrees_with_the_reference(N: int, G: int, D: int, places: Any, affine: bool, last: bool, dtype: Any) -> None:
    """`last`: x lies in memory with its channels last."""
    x, weight, bias, dy = draw(N, G, D, places, dtype=dtype)
    if D * math.prod(places) < 3:
        x *= 0  # two numbers that nearly agree have a large r, and rounding with it
    if last:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    weight, bias = (weight, bias) if affine else (None, None)
    found = numba_cpu.forward(x, G, weight, bias, EPS)
    expected = numpy_.forward(x, G, weight, bias, EPS)
    found += numba_cpu.backward(dy, x, weight, *expected[1:], affine)
    expected += numpy_.backward(dy, x, weight, *expected[1:], affine)
    for got, want in zip(found, expected, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            assert (got.shape, got.dtype) == (want.shape, dtype)
            size = float(np.abs(want).max(initial=0))
            np.testing.assert_allclose(got, want, rtol=0, atol=(1e-10 if dtype is np.float64 else 1e-5) * max(1.0, size))


@pytest.mark.usefixtures("groups")
def test_the_number_of_threads_and_the_others_in_the_batch_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, dy = draw(5, 2, 9, (11, 7), dtype=np.float32)

    def both_ways(x: Any, dy: Any) -> tuple[Any, ...]:
        y, mean, r = numba_cpu.forward(x, 2, weight, bias, EPS)
        return y, *numba_cpu.backward(dy, x, weight, mean, r)

    found = both_ways(x, dy)
    monkeypatch.setattr(workers, "groups", lambda N, operations: 1)
    for got, want in zip(found, both_ways(x, dy), strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(found[:2], both_ways(x[2:3], dy[2:3])[:2], strict=True):
        np.testing.assert_array_equal(got[2:3], want)


@KERNELS
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite_stays_in_its_group(kernel: Any) -> None:
    x, weight, bias, dy = draw(2, 2, 3, (4,))
    clean = kernel.forward(x, 2, weight, bias, EPS)[0]
    x[0, 1, 2] = np.nan
    y, mean, r = kernel.forward(x, 2, weight, bias, EPS)
    dx = kernel.backward(dy, x, weight, mean, r)[0]
    assert np.isnan(y[0, :3]).all()
    np.testing.assert_array_equal(y[0, 3:], clean[0, 3:])
    np.testing.assert_array_equal(y[1], clean[1])
    assert np.isfinite(dx[1]).all()
    assert np.isfinite(dx[0, 3:]).all()
