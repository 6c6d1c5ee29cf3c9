from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import ops
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import Array, apart, layouts, leaves, normal, tensors


@st.composite
def axes(draw: st.DrawFn, ndim: int) -> Any:
    return draw(st.one_of(st.none(), st.integers(-ndim, ndim - 1), hnp.valid_tuple_axes(ndim))) if ndim else None


@given(x=tensors(), keepdims=st.booleans(), data=st.data())
def test_sums_of_any_shape(x: Array, keepdims: bool, data: st.DataObject) -> None:
    axis = data.draw(axes(x.ndim))
    np.testing.assert_allclose(ops.sum(Tensor(x), axis, keepdims).data, x.sum(axis, keepdims=keepdims), atol=1e-13)
    assert gradcheck(lambda x: ops.sum(x, axis, keepdims), leaves(x), complex_step=True, elementwise=4)


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), keepdims=st.booleans(), lay_out=layouts, data=st.data())
def test_what_numpy_does(shape: tuple[int, ...], keepdims: bool, lay_out: Callable[[Array], Array], data: st.DataObject) -> None:
    x = lay_out(apart(*shape))
    axis = data.draw(axes(x.ndim))
    along: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    pairs: list[tuple[Callable[..., Tensor], Array]] = [
        (ops.mean, x.mean(**along)),
        (ops.var, x.var(**along)),
        (ops.max, x.max(**along)),
        (ops.min, x.min(**along)),
        (ops.logsumexp, np.log(np.exp(x).sum(**along))),
    ]
    for f, expected in pairs:
        np.testing.assert_allclose(f(Tensor(x), **along).data, expected, rtol=1e-12, atol=1e-13)
        assert gradcheck(lambda x, f=f: f(x, **along), leaves(x), directions=1, elementwise=4)


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), data=st.data())
def test_masked_sums_and_means_are_those_of_masked_arrays(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, mask = normal(*shape), data.draw(hnp.arrays(bool, shape))
    axis = data.draw(axes(len(shape)))
    masked = np.ma.array(np.where(mask, x, np.nan), mask=~mask)
    hidden = Tensor(np.where(mask, x, np.nan))
    np.testing.assert_allclose(ops.sum(hidden, axis, mask=mask).data, np.ma.filled(masked.sum(axis), 0), atol=1e-13)
    np.testing.assert_allclose(ops.mean(hidden, axis, mask=mask).data, np.ma.filled(masked.mean(axis), 0), atol=1e-13)
    assert gradcheck(lambda x: ops.mean(x, axis, mask=mask), leaves(x), complex_step=True, directions=1, elementwise=2)


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), lay_out=layouts, data=st.data())
def test_softmax_is_a_distribution_over_what_the_mask_allows(
    shape: tuple[int, ...], lay_out: Callable[[Array], Array], data: st.DataObject
) -> None:
    x, axis = lay_out(normal(*shape)), data.draw(st.integers(-len(shape), len(shape) - 1))
    mask = data.draw(st.one_of(st.none(), hnp.arrays(bool, shape)))
    odds = np.exp(x) * (1 if mask is None else mask)
    total = odds.sum(axis, keepdims=True)
    expected = np.divide(odds, total, out=np.zeros(shape), where=total > 0)
    np.testing.assert_allclose(ops.softmax(Tensor(x), axis, mask).data, expected, rtol=1e-12)
    assert gradcheck(lambda x: ops.softmax(x, axis, mask), leaves(x), complex_step=True, directions=1, elementwise=2)
    assert gradgradcheck(lambda x: ops.softmax(x, axis, mask), leaves(x), complex_step=True, directions=1, elementwise=2)


@pytest.mark.filterwarnings("error")
def test_what_a_mask_hides_has_no_influence() -> None:
    """Not on the result, not on the gradients, whatever it is; and where everything is hidden all are zero."""
    mask = np.array([[True, True, False], [False, False, False]])
    for hidden in (0.0, 1e30, -np.inf, np.inf, np.nan):
        (x,) = leaves(np.where(mask, [1.0, 2.0, 3.0], hidden))
        y = ops.softmax(x, 1, mask)
        (y * Tensor(normal(2, 3))).sum().backward()
        np.testing.assert_allclose(y.data, [[1 / (1 + np.e), np.e / (1 + np.e), 0], [0, 0, 0]], rtol=1e-15)
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.data[~mask], 0)
        assert np.isfinite(x.grad.data).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_normalisers_do_not_overflow(shift: float) -> None:
    """softmax(x + s) = softmax(x), logsumexp(x + s) = logsumexp(x) + s"""
    x = np.array([0.0, 1.0, 2.0])
    z = Tensor(x + shift)
    np.testing.assert_allclose(ops.logsumexp(z).data - shift, np.log(np.exp(x).sum()), rtol=1e-11)
    np.testing.assert_allclose(ops.softmax(z).data, np.exp(x) / np.exp(x).sum(), rtol=1e-12)
    np.testing.assert_allclose(ops.log_softmax(z).data, x - np.log(np.exp(x).sum()), rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_logsumexp_of_nothing_but_minus_infinity() -> None:
    (x,) = leaves(np.array([[-np.inf, -np.inf], [-np.inf, 0.0]]))
    y = ops.logsumexp(x, 1)
    y[1:].sum().backward()
    np.testing.assert_array_equal(y.data, [-np.inf, 0])
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [[0, 0], [0, 1]])


def test_tied_maxima_share_the_gradient() -> None:
    (x,) = leaves(np.array([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]]))
    ops.max(x, 1).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.data, [[0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3]])


@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), lay_out=layouts, data=st.data())
def test_layer_norm_agrees_with_torch(shape: tuple[int, ...], lay_out: Callable[[Array], Array], data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    normalised = shape[data.draw(st.integers(1, len(shape) - 1)) :]
    x, w, b = leaves(lay_out(normal(*shape)), normal(*normalised, seed=1), normal(*normalised, seed=2))
    y = ops.layer_norm(x, normalised, w, b)
    u = normal(*shape, seed=3)
    y.backward(u)
    theirs = [torch.tensor(np.ascontiguousarray(t.data), requires_grad=True) for t in (x, w, b)]
    expected = torch.nn.functional.layer_norm(theirs[0], normalised, theirs[1], theirs[2])
    expected.backward(torch.tensor(u))
    np.testing.assert_allclose(y.data, expected.detach().numpy(), atol=1e-12)
    for mine, other in zip((x, w, b), theirs, strict=True):
        assert mine.grad is not None
        # eps = 1e-5 lets 1/sqrt(var) reach 316 where all elements are equal: rounding grows with it
        np.testing.assert_allclose(mine.grad.data, other.grad.numpy(), rtol=1e-10, atol=1e-11)


def test_layer_norm_has_mean_0_and_variance_1() -> None:
    y = ops.layer_norm(Tensor(normal(5, 100) * 7 + 3), 100, eps=0).data
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(1), 1, rtol=1e-13)


X = Tensor(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.sum(X, 2), r"sum: axis 2 is out of range for x \(2, 3\)"),
        (lambda: ops.sum(X, (0, -2)), r"sum: axis \(0, -2\) names an axis of x \(2, 3\) twice"),
        (lambda: ops.mean(X[:, :0], 1), r"mean: there is nothing to average over axis 1 of x \(2, 0\)"),
        (lambda: ops.max(X[:, :0], 1), r"max: there is nothing to choose from over axis 1 of x \(2, 0\)"),
        (lambda: ops.softmax(X, 5), r"softmax: axis 5 is out of range for x \(2, 3\)"),
        (lambda: ops.softmax(X, 1, np.ones((2, 3))), r"softmax: mask must be boolean, .* broadcasts to x \(2, 3\), got float64 \(2, 3\)"),
        (lambda: ops.sum(X, mask=np.ones((5, 2, 3), bool)), r"sum: mask must be boolean, .* x \(2, 3\), got bool \(5, 2, 3\)"),
        (lambda: ops.layer_norm(X, 2), r"layer_norm: the last axes of x must be shape = \(2,\), none of them 0, got x \(2, 3\)"),
        (lambda: ops.layer_norm(X, 3, X), r"layer_norm: weight must have the shape \(3,\) that is normalised, got \(2, 3\)"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
