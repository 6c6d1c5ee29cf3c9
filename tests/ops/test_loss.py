from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import grad, ops
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import Array, leaves, normal, positive


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, float]:
    """Logits (..., V), targets (...), label smoothing."""
    lead, V = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)), draw(st.integers(1, 7))
    targets = draw(hnp.arrays(np.int64, lead, elements=st.integers(0, V - 1)))
    return normal(*lead, V), targets, draw(st.sampled_from([0.0, 0.1, 0.5]))


@given(problem=problems())
def test_cross_entropy_is_its_definition(problem: tuple[Array, Array, float]) -> None:
    """-sum_v q_v ln p_v, q = (1 - e) one-hot + e / V"""
    x, targets, e = problem
    V = x.shape[-1]
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    q = (1 - e) * np.eye(V)[targets] + e / V
    y = ops.cross_entropy(Tensor(x), targets, label_smoothing=e, reduction="none")
    np.testing.assert_allclose(y.data, -(q * np.log(p)).sum(-1), rtol=1e-12, atol=1e-13)

    def losses(x: Tensor) -> Tensor:
        return ops.cross_entropy(x, targets, label_smoothing=e, reduction="none")

    assert gradcheck(losses, leaves(x), complex_step=True, directions=1, elementwise=2)
    assert gradgradcheck(losses, leaves(x), complex_step=True, directions=1, elementwise=2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("e", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_agrees_with_torch(reduction: Any, e: float, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    (x,) = leaves(normal(13, 7).astype(dtype))
    targets = np.arange(13) % 7
    y = ops.cross_entropy(x, targets, label_smoothing=e, reduction=reduction)
    theirs = torch.tensor(x.data, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(targets), label_smoothing=e, reduction=reduction)
    u = positive(*y.shape).astype(dtype)
    y.backward(u)
    expected.backward(torch.tensor(u))
    assert y.dtype == dtype
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=rtol)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.data, theirs.grad.numpy(), rtol=rtol, atol=rtol / 100)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": lambda x, **how: ops.cross_entropy(x, np.arange(6).reshape(2, 3) % 4, **how),
    "mse_loss": lambda x, **how: ops.mse_loss(x, np.ones((2, 3, 4)), **how),
    "gaussian_nll_loss": lambda x, **how: ops.gaussian_nll_loss(x, Tensor(np.full(4, 0.3)), np.ones((2, 3, 4)), **how),
    "binary_cross_entropy_with_logits": lambda x, **how: ops.binary_cross_entropy_with_logits(x, np.full((2, 3, 4), 0.25), **how),
}


@pytest.mark.parametrize("name", LOSSES)
def test_weights_and_reductions(name: str) -> None:
    """Weights multiply; the mean divides by their sum; a weight of zero leaves an element out, for the gradient too."""
    f, (x,) = LOSSES[name], leaves(normal(2, 3, 4))
    each = f(x, reduction="none").data
    weights = np.array([[1.0, 0, 2], [0, 0, 3]]).reshape((2, 3) + (1,) * (each.ndim - 2))
    np.testing.assert_allclose(f(x).data, each.mean(), rtol=1e-13)
    np.testing.assert_allclose(f(x, reduction="sum").data, each.sum(), rtol=1e-13)
    np.testing.assert_allclose(f(x, weights=weights, reduction="none").data, weights * each, rtol=1e-13)
    y = f(x, weights=weights)
    np.testing.assert_allclose(y.data, np.average(each, weights=np.broadcast_to(weights, each.shape)), rtol=1e-13)
    y.backward()
    assert x.grad is not None
    unweighted = np.broadcast_to(weights.reshape(2, 3, 1) == 0, x.shape)
    assert not x.grad.data[unweighted].any()
    assert x.grad.data[~unweighted].all()
    mask = weights > 0
    np.testing.assert_allclose(f(x, weights=mask).data, each[np.broadcast_to(mask, each.shape)].mean(), rtol=1e-13)
    with pytest.raises(ValueError, match=f"{name}: weights must have a shape that broadcasts to the losses"):
        f(x, weights=np.ones(5))
    with pytest.raises(ValueError, match=f"{name}: reduction must be .* got 'max'"):
        f(x, reduction="max")
    with pytest.raises(ValueError, match=f"{name}: there is nothing to average: .* weights add up to 0"):
        f(x, weights=0 * weights)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_has_weight_zero_does_not_count_whatever_it_is(name: str, bad: float, reduction: Any) -> None:
    data, weights = normal(2, 3, 4), np.array([[1.0, 0, 2], [0, 3, 1]])
    results = []
    for filling in (0.0, bad):
        (x,) = leaves(np.where(weights[..., None] == 0, filling, data))
        y = LOSSES[name](x, weights=weights if name == "cross_entropy" else weights[..., None], reduction=reduction)
        y.backward(np.ones(y.shape))
        assert x.grad is not None
        results.append((y.data, x.grad.data))
    for clean, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, clean)
    assert not results[1][1][weights == 0].any()


def test_missing_targets_and_scales_do_not_count() -> None:
    weights = np.array([1.0, 0, 1])
    x, log_std = leaves(normal(3), np.array([0.1, np.nan, 0.2]))
    ops.gaussian_nll_loss(x, log_std, np.array([1.0, np.nan, 2.0]), weights=weights).backward()
    for t in (x, log_std):
        assert t.grad is not None
        assert np.isfinite(t.grad.data).all()
        assert t.grad.data[1] == 0


def test_second_derivatives_leave_out_what_has_weight_zero() -> None:
    (x,) = leaves(np.array([[1.0, 2, 3], [np.nan, 0, np.inf]]))
    (dx,) = grad(ops.cross_entropy(x, [0, 1], weights=np.array([1.0, 0])), x, create_graph=True)
    (d2x,) = grad((dx * dx).sum(), x)
    assert np.isfinite(d2x.data).all()
    assert d2x.data[0].all()
    assert not d2x.data[1].any()


def test_targets_may_be_an_array_a_tensor_or_a_list() -> None:
    x = Tensor(normal(3, 4))
    expected = ops.cross_entropy(x, np.array([1, 0, 3])).data
    for targets in ([1, 0, 3], Tensor(np.array([1, 0, 3], np.int32))):
        np.testing.assert_array_equal(ops.cross_entropy(x, targets).data, expected)


def test_losses_of_distributions_are_their_log_densities() -> None:
    x, log_std, target = normal(5, 2), normal(2, seed=1), normal(5, 2, seed=2)
    std = np.exp(log_std)
    density = np.exp(-(((target - x) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    loss = ops.gaussian_nll_loss(Tensor(x), Tensor(log_std), target, reduction="none")
    np.testing.assert_allclose(loss.data, -np.log(density), rtol=1e-12)
    assert gradcheck(ops.gaussian_nll_loss, leaves(x, log_std, target), complex_step=True)

    bits = (target > 0).astype(float)
    p = 1 / (1 + np.exp(-x))
    loss = ops.binary_cross_entropy_with_logits(Tensor(x), bits, reduction="none")
    np.testing.assert_allclose(loss.data, -np.log(np.where(bits, p, 1 - p)), rtol=1e-12)
    assert gradcheck(ops.binary_cross_entropy_with_logits, leaves(x, positive(5, 2) / 2), complex_step=True)

    np.testing.assert_allclose(ops.mse_loss(Tensor(x), target).data, ((x - target) ** 2).mean(), rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_sure_predictions_do_not_overflow() -> None:
    x = np.array([1e4, -1e4])
    np.testing.assert_array_equal(ops.binary_cross_entropy_with_logits(Tensor(x), np.array([1.0, 1.0]), reduction="none").data, [0, 1e4])
    np.testing.assert_array_equal(ops.cross_entropy(Tensor(np.array([x, x])), np.array([0, 1]), reduction="none").data, [0, 2e4])


X = Tensor(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: ops.cross_entropy(X, np.zeros(3, int)),
            ValueError,
            r"targets must be integers \(2,\) for logits \(2, 3\), got .*3,\)",
        ),
        (lambda: ops.cross_entropy(X, np.zeros(2)), ValueError, r"cross_entropy: targets must be integers .* got float64 \(2,\)"),
        (lambda: ops.cross_entropy(X, np.array([0, 3])), IndexError, r"cross_entropy: targets span 0\.\.3, the logits have classes 0\.\.2"),
        (
            lambda: ops.mse_loss(X, np.zeros(3)),
            ValueError,
            r"the target must have the shape of the prediction, \(2, 3\), got \(3,\)",
        ),
        (lambda: ops.mse_loss(X[:0], np.zeros((0, 3))), ValueError, r"mse_loss: there is nothing to average: the losses are \(0, 3\)"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
