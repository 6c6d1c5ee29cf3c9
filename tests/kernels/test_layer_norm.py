"""Layer normalisation against exact arithmetic, complex steps, differences and PyTorch; every implementation against the reference."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import workers
from minirnn.kernels.layer_norm import cupy_, numba_cpu, numpy_
from tests.kernels import on_device
from tests.kernels.on_device import COLUMNS, EMULATED, ROWS, SCHEDULES

EPS = 1e-5
KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
SHAPES = {"S": st.integers(0, 6), "D": st.integers(2, 20), "affine": st.booleans(), "seed": st.integers(0, 99)}


def draw(S: int, D: int, seed: int = 0, dtype: Any = np.float64) -> list[Any]:
    """x (S, D), weight (D,), bias (D,), dy (S, D)"""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((S, D), D, D, (S, D))]


@KERNELS
def test_the_rows_are_standardised_as_exact_sums_say(kernel: ModuleType) -> None:
    x, weight, bias, _ = draw(5, 17)
    y, mean, r = kernel.forward(x, weight, bias, EPS)
    for s, row in enumerate(x.tolist()):
        centre = math.fsum(row) / 17
        inverse = 1 / math.sqrt(math.fsum((v - centre) ** 2 for v in row) / 17 + EPS)
        assert mean[s] == pytest.approx(centre, rel=1e-13, abs=1e-15)
        assert r[s] == pytest.approx(inverse, rel=1e-13)
        np.testing.assert_allclose(y[s], (x[s] - centre) * inverse * weight + bias, rtol=1e-12, atol=1e-14)


@KERNELS
def test_shift_and_scale_of_a_row_make_no_difference(kernel: ModuleType) -> None:
    x, *_ = draw(4, 9)
    np.testing.assert_allclose(kernel.forward(8 * x + 3, None, None, 0.0)[0], kernel.forward(x, None, None, 0.0)[0], atol=1e-13)


@KERNELS
@given(**SHAPES)
def test_the_gradients_are_those_of_complex_steps_and_differences(kernel: ModuleType, S: int, D: int, affine: bool, seed: int) -> None:
    x, weight, bias, dy = draw(S, D, seed)
    parameters = [weight, bias] if affine else []
    directions = draw(S, D, seed + 1)[: 1 + len(parameters)]
    _, mean, r = kernel.forward(x, weight if affine else None, bias if affine else None, EPS)
    gradients = kernel.backward(dy, x, weight if affine else None, mean, r, affine)
    assert affine or gradients[1:] == (None, None)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=False))

    def at(step: complex) -> Any:
        moved = [a + step * d for a, d in zip([x, *parameters], directions, strict=True)]
        return (numpy_.forward(moved[0], *(moved[1:] or (None, None)), EPS)[0] * dy).sum()

    # D = 2 makes rows whose two numbers nearly agree, and then the third derivative is large: r is at most 1 / sqrt(eps) = 316
    size = max(1.0, float(r.max(initial=0)) ** 2)
    assert slope == pytest.approx(at(1e-20j).imag / 1e-20, rel=1e-10, abs=1e-11 * size)
    e = 1e-6
    assert slope == pytest.approx((at(e) - at(-e)) / (2 * e), rel=1e-5, abs=1e-7 * size)


@given(**SHAPES)
def test_the_gradient_has_nothing_along_what_standardising_removes(S: int, D: int, affine: bool, seed: int) -> None:
    """Along (1, .., 1), which the mean takes away; and along n all but the part eps r^2 that eps keeps from it."""
    x, weight, _, dy = draw(S, D, seed)
    _, mean, r = numpy_.forward(x, None, None, EPS)
    dx, _, _ = numpy_.backward(dy, x, weight if affine else None, mean, r)
    n = (x - mean[:, None]) * r[:, None]
    g = dy * weight if affine else dy
    scale = np.abs(g).sum(initial=0) * r.max(initial=1) * D
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-14 * scale)
    np.testing.assert_allclose((dx * n).sum(axis=1), EPS * r**3 * (g * n).sum(axis=1), rtol=1e-7, atol=1e-14 * scale)


def test_a_wrong_gradient_would_be_noticed() -> None:
    """A part along n that is left out, or a factor r, fails the comparison with the complex step."""
    x, weight, bias, dy = draw(4, 7)
    direction = draw(4, 7, 1)[0]
    _, mean, r = numpy_.forward(x, weight, bias, EPS)
    exact = (numpy_.forward(x + 1e-20j * direction, weight, bias, EPS)[0].imag / 1e-20 * dy).sum()
    g = dy * weight
    flat = r[:, None] * (g - g.mean(axis=1, keepdims=True))
    for wrong in (flat, 1.001 * numpy_.backward(dy, x, weight, mean, r)[0], numpy_.backward(dy, x, None, mean, r)[0]):
        assert (wrong * direction).sum() != pytest.approx(exact, rel=1e-5)


@KERNELS
@pytest.mark.parametrize("affine", [False, True])
def test_it_is_that_of_pytorch(kernel: ModuleType, affine: bool) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    arrays = draw(6, 33)
    x, weight, bias = (torch.tensor(a, requires_grad=True) for a in arrays[:3])
    theirs = torch.nn.functional.layer_norm(x, (33,), *((weight, bias) if affine else (None, None)), eps=EPS)
    theirs.backward(torch.tensor(arrays[3]))
    given_ = arrays[1:3] if affine else [None, None]
    y, mean, r = kernel.forward(arrays[0], *given_, EPS)
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=0, atol=1e-13)
    gradients = kernel.backward(arrays[3], arrays[0], given_[0], mean, r, affine)
    for got, want in zip(gradients, (x, weight, bias), strict=True):
        if got is not None:
            np.testing.assert_allclose(got, want.grad.numpy(), rtol=0, atol=1e-12)


@KERNELS
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite_stays_in_its_row(kernel: ModuleType) -> None:
    x, weight, bias, dy = draw(3, 8)
    clean = kernel.forward(x, weight, bias, EPS)[0]
    x[1, 2] = np.inf
    y, mean, r = kernel.forward(x, weight, bias, EPS)
    dx, _, _ = kernel.backward(dy, x, weight, mean, r)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], clean[[0, 2]])
    assert np.isfinite(dx[[0, 2]]).all()


def close(got: Any, want: Any, dtype: Any, terms: int) -> None:
    """Sums of so many terms, most of size 1, in another order: a few units in the last place for each doubling, and then some."""
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, want, rtol=0, atol=32 * eps * math.sqrt(terms) * max(1.0, float(np.abs(want).max(initial=0))))


@pytest.mark.parametrize(("S", "D"), [(1, 1), (63, 5), (64, 33), (200, 37)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_numba_computes_what_numpy_does_whatever_the_number_of_threads(S: int, D: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, dy = draw(S, D, dtype=dtype)
    before = [a.copy() for a in (x, weight, bias, dy)]

    def both_ways() -> tuple[Any, ...]:
        y, mean, r = numba_cpu.forward(x, weight, bias, EPS)
        return y, mean, r, *numba_cpu.backward(dy, x, weight, mean, r)

    found = both_ways()
    expected = (*numpy_.forward(x, weight, bias, EPS), *numpy_.backward(dy, x, weight, *found[1:3]))
    for got, want in zip(found, expected, strict=True):
        assert (got.dtype, got.shape) == (dtype, want.shape)
        close(got, want, dtype, max(S, D))
    monkeypatch.setattr(workers, "groups", lambda N, operations: 1)
    for got, alone in zip(found, both_ways(), strict=True):
        np.testing.assert_array_equal(got, alone)
    for a, then in zip((x, weight, bias, dy), before, strict=True):
        np.testing.assert_array_equal(a, then)


@EMULATED
@given(
    S=ROWS,
    D=COLUMNS,
    weighted=st.booleans(),
    biased=st.booleans(),
    affine=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    schedule=SCHEDULES,
)
def test_the_gpu_computes_what_numpy_does(S: int, D: int, weighted: bool, biased: bool, affine: bool, dtype: Any, schedule: int) -> None:
    x, weight, bias, dy = draw(S, D, dtype=dtype)
    there = on_device.put(x, weight, bias, dy)
    parameters = (there[1] if weighted else None, there[2] if biased else None)
    with on_device.careful(schedule, *there):
        y, mean, r = cupy_.forward(there[0], *parameters, EPS)
        gradients = cupy_.backward(there[3], there[0], parameters[0], mean, r, affine)
    expected = numpy_.forward(x, weight if weighted else None, bias if biased else None, EPS)
    for got, want in zip((y, mean, r), expected, strict=True):
        assert (got.dtype, got.shape) == (dtype, want.shape)
        close(got.get(), want, dtype, D)
    # the same mean and r, because a row of one element has r = 316, which magnifies the rounding of a mean
    wanted = numpy_.backward(dy, x, weight if weighted else None, mean.get(), r.get(), affine)
    for got, want in zip(gradients, wanted, strict=True):
        assert (got is None) == (want is None) == (not affine and got is not gradients[0])
        if got is not None:
            assert (got.dtype, got.shape) == (dtype, want.shape)
            close(got.get(), want, dtype, max(S, D))


@EMULATED
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_columns_of_many_rows_are_summed_in_portions_on_a_gpu(dtype: Any) -> None:
    """Rows of two portions and a bit, columns of two blocks and a bit; and the same bits whatever the schedule."""
    x, weight, _, dy = draw(2 * cupy_.ROWS + 3, 67, dtype=dtype)
    there = on_device.put(dy, x, weight)
    _, mean, r = numpy_.forward(x, None, None, EPS)
    runs = []
    for schedule in (0, 1, 5):
        with on_device.careful(schedule, *there):
            runs.append(cupy_.backward(*there, *on_device.put(mean, r)))
    for got, again, third, want in zip(*runs, numpy_.backward(dy, x, weight, mean, r), strict=True):
        close(got.get(), want, dtype, len(x))
        np.testing.assert_array_equal(got.get(), again.get())
        np.testing.assert_array_equal(got.get(), third.get())


@EMULATED
@pytest.mark.parametrize("D", [5, 300])
def test_a_row_gets_the_same_bits_alone_on_a_gpu_and_a_nan_stays_in_it(D: int) -> None:
    x, weight, bias, dy = draw(5, D, dtype=np.float32)
    x[3, D // 2] = np.nan
    there = on_device.put(x, weight, bias)
    y, mean, r = cupy_.forward(*there, EPS)
    dx, _, _ = cupy_.backward(*on_device.put(dy), there[0], there[1], mean, r, affine=False)
    assert np.isnan(y.get()).any(axis=1).tolist() == np.isnan(dx.get()).all(axis=1).tolist() == [False, False, False, True, False]
    for s in (0, 4):
        alone, of_it, inverse = cupy_.forward(there[0][s : s + 1], *there[1:], EPS)
        np.testing.assert_array_equal(alone.get()[0], y.get()[s])
        part = cupy_.backward(*on_device.put(dy[s : s + 1]), there[0][s : s + 1], there[1], of_it, inverse, affine=False)[0]
        np.testing.assert_array_equal(part.get()[0], dx.get()[s])


@EMULATED
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_rounded_once_on_a_gpu(name: str) -> None:
    """Everything is computed in float32 from what the arrays hold: a result is the float32 one, rounded."""
    dtype = on_device.dtype(name)
    x, weight, bias, dy = (a.astype(dtype) for a in draw(4, 50, dtype=np.float32))
    wide = [a.astype(np.float32) for a in (x, weight, bias)]
    y, mean, r = cupy_.forward(*on_device.put(x, weight, bias), EPS)
    expected, centre, inverse = numpy_.forward(*wide, EPS)
    assert (y.dtype, mean.dtype, r.dtype) == (dtype, np.float32, np.float32)
    gradients = cupy_.backward(*on_device.put(dy, x, weight), mean, r)
    wanted = numpy_.backward(dy.astype(np.float32), wide[0], wide[1], centre, inverse)
    half_a_unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    for got, want in zip((y, *gradients), (expected, *wanted), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.get().astype(np.float32), want, rtol=half_a_unit * 1.01, atol=1e-5)
