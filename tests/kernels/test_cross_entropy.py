"""Cross entropy against exact arithmetic, its gradient against differences and complex steps, the fused passes against the reference."""

from __future__ import annotations

import math
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.cross_entropy import numba_cpu, numpy_

KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])
SHAPES = {"S": st.integers(1, 9), "V": st.integers(1, 40), "smoothing": st.sampled_from([0.0, 0.1, 0.9]), "seed": st.integers(0, 99)}


def draw(S: int, V: int, seed: int = 0, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits (S, V), targets (S,), dloss (S,)"""
    rng = np.random.default_rng(seed)
    return (3 * rng.standard_normal((S, V))).astype(dtype), rng.integers(V, size=S), rng.standard_normal(S).astype(dtype)


@KERNELS
def test_equal_logits_cost_the_logarithm_of_their_number(kernel: ModuleType) -> None:
    loss, lse = kernel.forward(np.full((3, 8), 5.0), np.array([0, 3, 7]), 0.3)
    np.testing.assert_allclose(loss, math.log(8), rtol=1e-15)
    np.testing.assert_allclose(lse, 5 + math.log(8), rtol=1e-15)


@KERNELS
@SMOOTHING
def test_the_loss_is_the_definition_summed_exactly(kernel: ModuleType, smoothing: float) -> None:
    """- sum_k q_k log p_k with the logarithms of exact sums of Python's exponentials"""
    logits, targets, _ = draw(5, 11)
    loss, lse = kernel.forward(logits, targets, smoothing)
    for s, row in enumerate(logits.tolist()):
        total = math.log(sum(Fraction(math.exp(x)) for x in row))
        q = [smoothing / 11 + (1 - smoothing) * (k == targets[s]) for k in range(11)]
        assert loss[s] == pytest.approx(-math.fsum(w * (x - total) for w, x in zip(q, row, strict=True)), rel=1e-13)
        assert lse[s] == pytest.approx(total, rel=1e-13)


@KERNELS
@given(**SHAPES)
def test_the_gradient_is_that_of_differences_and_complex_steps(kernel: ModuleType, S: int, V: int, smoothing: float, seed: int) -> None:
    logits, targets, dloss = draw(S, V, seed)
    direction = np.random.default_rng(seed + 1).standard_normal((S, V))
    _, lse = kernel.forward(logits, targets, smoothing)
    slope = (kernel.backward(logits, targets, lse, dloss, smoothing) * direction).sum()

    step = 1e-20
    exact = (numpy_.forward(logits + 1j * step * direction, targets, smoothing)[0].imag / step) @ dloss
    assert slope == pytest.approx(exact, rel=1e-12, abs=1e-12)
    e = 1e-5  # error e^2 |f'''| + eps |f| / e, both about 1e-9
    ahead, behind = (kernel.forward(logits + sign * e * direction, targets, smoothing)[0] @ dloss for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * e), rel=1e-6, abs=1e-7)


@KERNELS
@given(**SHAPES)
def test_the_gradient_of_a_row_sums_to_zero(kernel: ModuleType, S: int, V: int, smoothing: float, seed: int) -> None:
    """Adding a number to all logits of a row changes nothing."""
    logits, targets, dloss = draw(S, V, seed)
    loss, lse = kernel.forward(logits, targets, smoothing)
    dlogits = kernel.backward(logits, targets, lse, dloss, smoothing)
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-13 * max(1, abs(dloss).max()))
    np.testing.assert_allclose(kernel.forward(logits + 700, targets, smoothing)[0], loss, rtol=0, atol=1e-11)


@given(**SHAPES, dtype=st.sampled_from([np.float32, np.float64]))
def test_the_fused_passes_are_the_reference(S: int, V: int, smoothing: float, seed: int, dtype: Any) -> None:
    logits, targets, dloss = draw(S, V, seed, dtype)
    before = logits.copy()
    tolerance = {"rtol": 0, "atol": (1e-5 if dtype is np.float32 else 1e-13) * 10}
    loss, lse = numba_cpu.forward(logits, targets, smoothing)
    expected, expected_lse = numpy_.forward(logits, targets, smoothing)
    dlogits = numba_cpu.backward(logits, targets, lse, dloss, smoothing)
    assert loss.dtype == lse.dtype == dlogits.dtype == dtype
    np.testing.assert_allclose(loss, expected, **tolerance)
    np.testing.assert_allclose(lse, expected_lse, **tolerance)
    np.testing.assert_allclose(dlogits, numpy_.backward(logits, targets, expected_lse, dloss, smoothing), **tolerance)
    np.testing.assert_array_equal(logits, before)


@SMOOTHING
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fused_passes_are_those_of_pytorch(smoothing: float, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    logits, targets, dloss = draw(70, 1301, dtype=dtype)
    x = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(x, torch.tensor(targets), label_smoothing=smoothing, reduction="none")
    theirs.backward(torch.tensor(dloss))
    loss, lse = numba_cpu.forward(logits, targets, smoothing)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype is np.float32 else 1e-12}
    np.testing.assert_allclose(loss, theirs.detach().numpy(), **tolerance)
    np.testing.assert_allclose(numba_cpu.backward(logits, targets, lse, dloss, smoothing), x.grad.numpy(), **tolerance)


@SMOOTHING
@pytest.mark.usefixtures("groups")
def test_a_row_gets_the_same_bits_alone_and_whatever_the_number_of_threads(smoothing: float) -> None:
    logits, targets, dloss = draw(200, 1301, dtype=np.float32)
    loss, lse = numba_cpu.forward(logits, targets, smoothing)
    dlogits = numba_cpu.backward(logits, targets, lse, dloss, smoothing)
    for s in range(0, 200, 13):
        rows = slice(s, s + 1)
        alone = numba_cpu.forward(logits[rows], targets[rows], smoothing)
        np.testing.assert_array_equal(np.concatenate(alone), [loss[s], lse[s]])
        np.testing.assert_array_equal(numba_cpu.backward(logits[rows], targets[rows], lse[rows], dloss[rows], smoothing)[0], dlogits[s])


@KERNELS
@SMOOTHING
@pytest.mark.parametrize("V", [1, 5, 16, 33, 200])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite_shows_as_nan_in_its_own_row(kernel: ModuleType, smoothing: float, V: int, bad: float, dtype: Any) -> None:
    clean, targets, dloss = draw(V + 2, V, dtype=dtype)
    logits = clean.copy()
    rows = np.arange(1, V + 1)
    logits[rows, rows - 1] = bad  # every column once, so every lane of a vector
    loss, lse = kernel.forward(logits, targets, smoothing)
    dlogits = kernel.backward(logits, targets, lse, dloss, smoothing)
    assert np.isnan(loss[rows]).all()
    assert np.isnan(dlogits[rows, rows - 1]).all()
    for got, want in zip((loss, lse), kernel.forward(clean, targets, smoothing), strict=True):
        np.testing.assert_array_equal(got[[0, -1]], want[[0, -1]])
    assert np.isfinite(dlogits[[0, -1]]).all()


@KERNELS
@SMOOTHING
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_row_without_weight_gets_zeros(kernel: ModuleType, smoothing: float, bad: float) -> None:
    logits, targets, dloss = draw(3, 7)
    logits[1], dloss[1] = bad, 0
    _, lse = kernel.forward(logits, targets, smoothing)
    dlogits = kernel.backward(logits, targets, lse, dloss, smoothing)
    np.testing.assert_array_equal(dlogits[1], 0)
    assert dlogits[[0, 2]].all()


@KERNELS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_class_that_is_ruled_out_has_probability_zero(kernel: ModuleType, dtype: Any) -> None:
    logits = np.array([[1, -np.inf, 2, -np.inf], [0, 0, -np.inf, 0]], dtype)
    loss, lse = kernel.forward(logits, np.array([0, 2]))
    assert loss[0] == pytest.approx(math.log(1 + math.e), rel=1e-6)
    assert loss[1] == np.inf
    dlogits = kernel.backward(logits, np.array([0, 2]), lse, np.ones(2, dtype))
    np.testing.assert_array_equal(dlogits[0, [1, 3]], [0, 0])


@KERNELS
@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
def test_large_logits_neither_overflow_nor_underflow(kernel: ModuleType, size: float) -> None:
    logits = np.array([[size, -size, 0], [-size, -size, -size]], np.float32)
    loss, lse = kernel.forward(logits, np.array([1, 0]))
    np.testing.assert_allclose(loss, [2 * size, math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(kernel.backward(logits[:1], np.array([1]), lse[:1], np.ones(1, np.float32)), [[1, -1, 0]], atol=1e-6)


@pytest.mark.parametrize("wrong", ["a class further on", "scaled by 1.001", "without its smoothing"])
def test_a_wrong_gradient_would_be_noticed(wrong: str) -> None:
    """The checks above are as sharp as they claim: each of these fails the comparison with the complex step."""
    logits, targets, dloss = draw(6, 13)
    direction = np.random.default_rng(1).standard_normal(logits.shape)
    _, lse = numba_cpu.forward(logits, targets, 0.1)
    planted = {
        "a class further on": lambda: np.roll(numba_cpu.backward(logits, targets, lse, dloss, 0.1), 1, axis=1),
        "scaled by 1.001": lambda: 1.001 * numba_cpu.backward(logits, targets, lse, dloss, 0.1),
        "without its smoothing": lambda: numba_cpu.backward(logits, targets, lse, dloss, 0.0),
    }[wrong]()
    exact = (numpy_.forward(logits + 1e-20j * direction, targets, 0.1)[0].imag / 1e-20) @ dloss
    assert (planted * direction).sum() != pytest.approx(exact, rel=1e-6, abs=1e-7)
