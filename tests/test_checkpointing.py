"""Gradient checkpointing: the same gradients, to every order, with less kept."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from minirnn import Tensor, checkpoint, grad, no_grad, ops
from minirnn.autograd import Function
from minirnn.nn import Dropout, Linear, Sequential
from minirnn.study import gradcheck, gradgradcheck


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)), requires_grad=True)


def same(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@given(array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_gradients_are_the_same_to_the_last_bit(shape):
    x, w = leaf(*shape), leaf(*shape, seed=1)

    def f(x: Tensor) -> Tensor:
        return ops.tanh(x * w) * w + ops.exp(x)

    plain, stored = f(x), checkpoint(f, x)
    np.testing.assert_array_equal(plain.numpy(), stored.numpy())
    same(grad((stored * stored).sum(), [x, w]), grad((plain * plain).sum(), [x, w]))


def test_first_and_second_derivatives():
    w = leaf(3, 3, seed=1)

    def f(x: Tensor, s: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        y = ops.tanh(x @ w) * s
        return y, y * y

    inputs = [leaf(2, 3), leaf(2, 3, seed=2), w]
    assert gradcheck(lambda *xs: checkpoint(f, *xs), inputs)
    assert gradgradcheck(lambda *xs: checkpoint(f, *xs), inputs)


def test_third_derivatives():
    x = leaf(3)

    def f(x: Tensor) -> Tensor:
        return x * x * x * x

    y = checkpoint(f, x)
    for factor, power in ((4, 3), (12, 2), (24, 1)):
        (y,) = grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.numpy(), factor * x.data**power, rtol=1e-13)


def test_what_f_closes_over_leaves_and_computed_tensors():
    x, w, b = leaf(4), leaf(4, seed=1), leaf(4, seed=2)

    def loss(run) -> Tensor:
        gain = ops.exp(w)  # computed outside, used inside, and used again outside
        return (run(lambda x: ops.tanh(x * gain + b) * x, x * w) * gain).sum()

    same(grad(loss(checkpoint), [x, w, b]), grad(loss(lambda f, x: f(x)), [x, w, b]))
    assert gradgradcheck(lambda x, w, b: checkpoint(lambda x: ops.tanh(x * ops.exp(w) + b), x * w), [x, w, b])


def test_an_argument_that_f_closes_over_too_and_one_that_comes_twice():
    x = leaf(3)
    y = checkpoint(lambda a: a * x, x)
    np.testing.assert_allclose(grad(y.sum(), x)[0].numpy(), 2 * x.data)
    y = checkpoint(lambda a, b: a * b * b, x, x)
    np.testing.assert_allclose(grad(y.sum(), x)[0].numpy(), 3 * x.data**2)
    h = x * 1
    y = checkpoint(lambda a: a * h, h)
    np.testing.assert_allclose(grad(y.sum(), x)[0].numpy(), 2 * x.data)


def test_backward_adds_to_leaves_once_and_calls_their_hooks_once():
    x, w = leaf(3), leaf(3, seed=1)
    calls = []
    w.register_hook(lambda g: calls.append(g.numpy().copy()))
    x.register_hook(lambda g: g * 10)
    y = checkpoint(lambda x: x * w, x) + w
    y.sum().backward()
    assert len(calls) == 1
    np.testing.assert_allclose(w.grad.numpy(), x.data + 1)
    np.testing.assert_allclose(x.grad.numpy(), 10 * w.data)


def test_nested_checkpoints():
    x, w = leaf(3), leaf(3, seed=1)

    def inner(x: Tensor) -> Tensor:
        return ops.tanh(x * w)

    def outer(x: Tensor) -> Tensor:
        return checkpoint(inner, checkpoint(inner, x) * w) + x

    def plain(x: Tensor) -> Tensor:
        return inner(inner(x) * w) + x

    same(grad((checkpoint(outer, x) ** 2).sum(), [x, w]), grad((plain(x) ** 2).sum(), [x, w]))
    assert gradgradcheck(lambda x, w_: checkpoint(outer, x), [x, w])


def test_several_outputs_some_unused_some_without_gradient():
    x = leaf(2, 3)

    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return x * 2, ops.tanh(x), Tensor(np.argmax(x.data, axis=1)), x.detach() * 3

    doubled, squashed, best, constant = checkpoint(f, x)
    assert best.dtype.kind == "i"
    assert not best.requires_grad
    np.testing.assert_array_equal(constant.numpy(), 3 * x.data)
    np.testing.assert_allclose(grad(squashed.sum(), x, retain_graph=True)[0].numpy(), 1 - np.tanh(x.data) ** 2)
    np.testing.assert_allclose(grad((doubled * constant).sum(), x)[0].numpy(), 2 * constant.data)


def test_inputs_may_be_anything():
    w, ids = leaf(5, 2), Tensor(np.array([0, 3, 3]))

    def f(w: Tensor, ids: Tensor, scale: float, name: str, mask: np.ndarray, other: Tensor) -> Tensor:
        assert name == "text"
        return w[ids] * scale * Tensor(mask) + other.to(np.float64)

    narrow = Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    y = checkpoint(f, w, ids, 3.0, "text", np.ones((3, 2)), narrow)
    dw, dnarrow = grad(y.sum(), [w, narrow])
    assert dw.numpy().tolist() == [[3, 3], [0, 0], [0, 0], [6, 6], [0, 0]]
    assert dnarrow.dtype == np.float32


def test_nothing_is_recorded_where_nothing_needs_a_gradient():
    x = Tensor(np.ones(2))
    assert not checkpoint(lambda x: x * 2, x).requires_grad
    with no_grad():
        assert not checkpoint(lambda x: x * 2, leaf(2)).requires_grad
    assert checkpoint(lambda: 3.0 * leaf(2)).shape == (2,)


def test_dropout_is_drawn_again_as_it_was():
    rng = np.random.default_rng(0)
    dropout = Dropout(0.5, rng=rng)
    block = Sequential(Linear(20, 20, rng=1), dropout, Linear(20, 20, rng=2)).to(np.float64)
    x = leaf(8, 20)
    state = rng.bit_generator.state
    expected = grad((block(x) ** 2).sum(), [x, *block.parameters()])
    after = rng.bit_generator.state
    for f, options in ((block, {}), (lambda x: block(x), {"generators": [rng]})):
        rng.bit_generator.state = state
        y = (checkpoint(f, x, **options) ** 2).sum()
        assert rng.bit_generator.state == after
        rng.random(3)  # somebody else draws in between
        between = rng.bit_generator.state
        same(grad(y, [x, *block.parameters()]), expected)
        assert rng.bit_generator.state == between


def test_random_numbers_that_nobody_named_are_noticed():
    rng = np.random.default_rng(0)
    y = checkpoint(lambda x: x * Tensor(rng.random(x.shape)), leaf(5))
    with pytest.raises(RuntimeError, match=r"another result in the backward pass .* generators=\["):
        y.sum().backward()


@pytest.mark.parametrize("shape", [(300, 64), (7,), ()])
def test_other_signs_of_the_same_magnitude_are_noticed(shape):
    signs = iter([1, -1])
    y = checkpoint(lambda x: x * next(signs), leaf(*shape))
    with pytest.raises(RuntimeError, match="another result in the backward pass"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_not_another_result(dtype):
    scales = iter([1.0, 1 + 4 * float(np.finfo(dtype).eps)])
    x = Tensor(np.append(leaf(1000).data, np.inf).astype(dtype), requires_grad=True)
    checkpoint(lambda x: x * next(scales), x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1, rtol=1e-6)


def test_what_f_computes_on_the_way_is_not_kept():
    alive: list[weakref.ref[Tensor]] = []

    def f(x: Tensor) -> Tensor:
        h = ops.tanh(x)
        alive.append(weakref.ref(h))
        return h * h

    x = leaf(10)
    kept = f(x)
    assert alive.pop()() is not None
    del kept
    y = checkpoint(f, x)
    assert alive.pop()() is None
    y.sum().backward()
    assert alive.pop()() is None


def test_f_runs_once_more_in_the_backward_pass_and_no_oftener():
    runs = []

    class Count(Function):
        def forward(self, x):
            runs.append(1)
            return x * 1

        def backward(self, dy):
            return dy

    x = leaf(2)
    y = checkpoint(lambda x: Count.apply(x) * 2, x * 3)
    assert len(runs) == 1
    y.sum().backward(retain_graph=True)
    assert len(runs) == 2
    y.sum().backward()
    assert len(runs) == 3
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.sum().backward()


@given(st.integers(1, 6), st.integers(1, 3))
def test_a_recurrence_in_chunks(T, chunk):
    w, h0, xs = leaf(3, 3), leaf(2, 3, seed=1), leaf(T, 2, 3, seed=2)

    def steps(h: Tensor, xs: Tensor) -> Tensor:
        for x in xs:
            h = ops.tanh(h @ w + x)
        return h

    h = h0
    for start in range(0, T, chunk):
        h = checkpoint(steps, h, xs[start : start + chunk])
    found, expected = grad(h.sum(), [w, h0, xs]), grad(steps(h0, xs).sum(), [w, h0, xs])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-15)
