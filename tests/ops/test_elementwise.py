from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import grad, ops
from minirnn.diagnostics import monitored
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import Array, apart, layouts, leaves, normal, positive, tensors
from .seen import Seen

UNARY: dict[str, tuple[Callable[..., Tensor], Callable[..., Any], Callable[..., Array]]] = {
    "abs": (ops.abs, np.abs, apart),
    "exp": (ops.exp, np.exp, normal),
    "log": (ops.log, np.log, positive),
    "log_sigmoid": (ops.log_sigmoid, lambda x: -np.log(1 + np.exp(-x)), apart),
    "neg": (ops.neg, np.negative, normal),
    "pow": (lambda x: x**1.5, lambda x: x**1.5, positive),
    "relu": (ops.relu, lambda x: np.where(x > 0, x, 0), apart),
    "sigmoid": (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x)), normal),
    "softplus": (ops.softplus, lambda x: np.log(1 + np.exp(x)), apart),
    "sqrt": (ops.sqrt, np.sqrt, positive),
    "tanh": (ops.tanh, np.tanh, normal),
}
BINARY: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
    "add": (ops.add, np.add),
    "sub": (ops.sub, np.subtract),
    "mul": (ops.mul, np.multiply),
    "div": (ops.div, np.divide),
    "maximum": (ops.maximum, np.maximum),
    "minimum": (ops.minimum, np.minimum),
}


@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
def test_one_operand_of_any_shape_and_layout(name: str, data: st.DataObject) -> None:
    f, expected, source = UNARY[name]
    x = data.draw(tensors(source))
    y = f(Tensor(x))
    np.testing.assert_allclose(y.data, expected(x), rtol=1e-12)
    assert y.shape == x.shape
    assert gradcheck(f, leaves(x), elementwise=4)


@pytest.mark.parametrize("name", BINARY)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=5), lay_out=layouts)
def test_two_operands_broadcast_as_in_numpy(name: str, shapes: hnp.BroadcastableShapes, lay_out: Callable[[Array], Array]) -> None:
    f, expected = BINARY[name]
    a, b = lay_out(apart(*shapes.input_shapes[0])), lay_out(positive(*shapes.input_shapes[1], seed=1) + 100)
    y = f(Tensor(a), Tensor(b))
    np.testing.assert_array_equal(y.data, expected(a, b))
    assert y.shape == shapes.result_shape
    assert gradcheck(f, leaves(a, b), elementwise=4)


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=4))
def test_where_broadcasts_its_condition_too(shapes: hnp.BroadcastableShapes) -> None:
    condition, a, b = (normal(*shape, seed=k) for k, shape in enumerate(shapes.input_shapes))
    np.testing.assert_array_equal(ops.where(condition > 0, Tensor(a), Tensor(b)).data, np.where(condition > 0, a, b))
    assert gradcheck(lambda a, b: ops.where(condition > 0, a, b), leaves(a, b), elementwise=4)


def test_a_number_takes_the_dtype_of_the_tensor() -> None:
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(2, dtype))
        for y in (x + 1, 1 - x, 2.5 * x, x / 3, 1 / x, x**2, x**0.5, ops.maximum(0, x), ops.where(x > 0, x, 0.0), np.int64(3) * x):
            assert y.dtype == dtype


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.int64, np.uint8])
def test_a_number_beside_integers_and_booleans_is_not_truncated(dtype: Any) -> None:
    """NumPy's results, with float32 for its float64 where the number is a float."""
    data = np.array([1, 0, 1], dtype)
    x = Tensor(data)
    for half in (0.5, np.float64(0.5), np.float32(0.5)):
        for y, expected in (
            (x * half, data * 0.5),
            (half + x, data + 0.5),
            (x**half, data**0.5),
            (ops.maximum(half, x), np.maximum(0.5, data)),
        ):
            assert y.dtype == np.float32
            np.testing.assert_array_equal(y.data, expected.astype(np.float32))
    for two in (2, np.int64(2)):
        y = x * two
        assert y.dtype == (data * 2).dtype
        np.testing.assert_array_equal(y.data, data * 2)
    y = x * [0.5, 1.5, 2.5]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data, data * [0.5, 1.5, 2.5])
    assert x.clone().dtype == (x * np.bool_(True)).dtype == dtype


def test_scalars_of_numpy_are_numbers() -> None:
    x = Tensor(np.full(2, 3, np.float32))
    for y in (x * np.float64(2), np.float64(2) * x, x ** np.float64(2), x ** np.int64(2)):
        assert y.dtype == np.float32
    np.testing.assert_array_equal((x ** np.float64(2)).data, 9)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_the_smaller_of_two_integers(dtype: Any) -> None:
    a, b = np.array([0, 1, 1, 0], dtype), np.array([1, 0, 1, 0], dtype)
    np.testing.assert_array_equal(ops.minimum(Tensor(a), Tensor(b)).data, np.minimum(a, b))
    lowest = Tensor(np.array([np.iinfo(np.int64).min]))
    np.testing.assert_array_equal(ops.minimum(lowest, 0).data, lowest.data)


def test_mixed_dtypes_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"Add: operand 0 \(2,\) is float32 .* operand 1 \(3, 1\) is float64 .*\.to\(dtype\)"):
        Tensor(np.ones(2, np.float32)) + Tensor(np.ones((3, 1)))


@pytest.mark.filterwarnings("error")
def test_extremes_neither_overflow_nor_warn() -> None:
    x = Tensor(np.array([-np.inf, -1e4, 1e4, np.inf]))
    np.testing.assert_array_equal(ops.sigmoid(x).data, [0, 0, 1, 1])
    np.testing.assert_array_equal(ops.softplus(x).data, [0, 0, 1e4, np.inf])
    np.testing.assert_array_equal(ops.log_sigmoid(x).data, [-np.inf, -1e4, 0, 0])
    np.testing.assert_array_equal(ops.relu(x).data, [0, 0, 1e4, np.inf])
    tiny = ops.softplus(Tensor(np.array([-50.0])))
    np.testing.assert_allclose(tiny.data, np.exp([-50.0]), rtol=1e-15)


def test_nan_stays_visible() -> None:
    nan = Tensor(np.array([np.nan]))
    for y in (ops.relu(nan), ops.maximum(nan, 0), ops.maximum(0, nan), ops.clip(nan, -1, 1), ops.softplus(nan)):
        assert np.isnan(y.data).all()


def test_powers_are_smooth_at_zero() -> None:
    """x^2 has derivatives 2x, 2, 0, 0, ...; no 0 * 0^-1 on the way."""
    (x,) = leaves(np.zeros(1))
    for exponent in (0, 1, 2, 3):
        assert gradgradcheck(lambda x, p=exponent: ops.pow(x, p) * x, [x])
    (x**0).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0])
    derivative = x**2
    for expected in (0.0, 2.0):
        (derivative,) = grad(derivative.sum(), x, create_graph=True)
        np.testing.assert_array_equal(derivative.data, [expected])


def test_equal_operands_of_maximum_pass_the_gradient_to_the_first() -> None:
    for f in (ops.maximum, ops.minimum):
        a, b = leaves(np.ones(2), np.ones(2))
        f(a, b).sum().backward()
        assert a.grad is not None
        np.testing.assert_array_equal(a.grad.data, 1)
        assert b.grad is not None
        np.testing.assert_array_equal(b.grad.data, 0)


def test_clip_has_no_gradient_outside() -> None:
    (x,) = leaves(np.array([-2.0, 0.5, 2.0]))
    y = ops.clip(x, -1, 1)
    y.sum().backward()
    np.testing.assert_array_equal(y.data, [-1, 0.5, 1])
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0, 1, 0])
    with pytest.raises(ValueError, match=r"clip: low must be at most high, got low=1, high=0"):
        ops.clip(x, 1, 0)


@pytest.mark.parametrize("f", [ops.mul, ops.div, ops.sub, ops.matmul])
def test_a_gradient_that_nobody_needs_is_not_computed(f: Callable[..., Tensor]) -> None:
    def operations(*needs: bool) -> int:
        a, b = (Tensor(positive(3, 3, seed=k), needed) for k, needed in enumerate(needs))
        y = f(a, b)
        seen = Seen()
        with monitored(seen):
            grad(y, [t for t in (a, b) if t.requires_grad], Tensor(np.ones((3, 3))), create_graph=True)
        return len(seen.functions)

    assert operations(True, False) < operations(True, True)


def test_dropout_keeps_the_mean_and_its_own_mask() -> None:
    p, n = 0.3, 100_000
    (x,) = leaves(np.ones(n, np.float32))
    y = ops.dropout(x, p, rng=1)
    y.sum().backward()
    kept = y.data != 0
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data[kept], np.float32(1 / (1 - p)))
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)  # five standard deviations of a binomial share
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, y.data)


def test_dropout_draws_from_what_it_is_given() -> None:
    x = Tensor(normal(50))
    np.testing.assert_array_equal(ops.dropout(x, 0.5, rng=3).data, ops.dropout(x, 0.5, rng=np.random.default_rng(3)).data)
    rng = np.random.default_rng(3)
    assert (ops.dropout(x, 0.5, rng=rng).data != ops.dropout(x, 0.5, rng=rng).data).any()
    assert ops.dropout(x, 0.0) is x
    assert gradgradcheck(lambda x: ops.dropout(x * x, 0.5, rng=0), leaves(normal(6)), complex_step=True)
    with pytest.raises(ValueError, match=r"dropout: p is a probability in \[0, 1\), got 1"):
        ops.dropout(x, 1)
