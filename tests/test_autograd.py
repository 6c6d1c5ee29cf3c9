"""The tape: gradients of graphs of every form, hooks, freeing, memory, and what happens when something goes wrong."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

from minirnn import Tensor, autograd, enable_grad, grad, no_grad, ops, tensor
from minirnn.autograd import Function
from minirnn.study import gradcheck, gradgradcheck

FLOATS = st.floats(-2, 2).map(lambda x: round(x, 3))


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)), requires_grad=True)


class TwoOutputs(Function):
    """a = 2x, b = 3x        dx = 2 da + 3 db, each None where nobody asked for it"""

    seen: list[tuple[bool, bool]] = []  # noqa: RUF012

    def forward(self, x):
        return 2 * x, 3 * x

    def backward(self, da, db):
        self.seen.append((da is not None, db is not None))
        return sum((k * g for k, g in ((2, da), (3, db)) if g is not None), start=Tensor(np.zeros(self.inputs[0].shape)))


@given(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3), st.data())
def test_gradients_of_broadcast_operands_have_their_shape_and_are_the_derivatives(shapes, data):
    a, b, c = (Tensor(data.draw(arrays(np.float64, s, elements=FLOATS)), requires_grad=True) for s in shapes.input_shapes)
    assert gradcheck(lambda a, b, c: a * b + ops.tanh(c) * a - b, [a, b, c])
    (a * b + c).sum().backward()
    for t in (a, b, c):
        assert (t.grad.shape, t.grad.dtype) == (t.shape, t.dtype)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_nth_derivative_of_x_to_the_fifth(depth):
    x = leaf(4)
    y = x * x * x * x * x
    factor = 1
    for n in range(depth):
        (y,) = grad(y.sum(), x, create_graph=True)
        factor *= 5 - n
    np.testing.assert_allclose(y.numpy(), factor * x.data ** (5 - depth), rtol=1e-12)


def test_a_tensor_used_many_times_gets_the_sum():
    x = leaf(3)
    y = x + x * x + x * x * x
    (y + y + x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (1 + 2 * x.data + 3 * x.data**2) + 1, rtol=1e-14)


def test_a_diamond_is_walked_once_per_node():
    calls = []

    class Counted(Function):
        def forward(self, x):
            return x + 1

        def backward(self, dy):
            calls.append(1)
            return dy

    y = leaf(1)
    for _ in range(30):  # 2^30 paths
        y = Counted.apply(y)
        y = y * 0.5 + y * 0.5
    y.sum().backward()
    assert len(calls) == 30


def test_backward_adds_up_over_calls_and_grad_leaves_it_alone():
    x = leaf(2)
    for _ in range(3):
        (x * x).sum().backward()
    (g,) = grad((x * x).sum(), x)
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.data)
    np.testing.assert_allclose(g.numpy(), 2 * x.data)


def test_a_leaf_is_its_own_derivative():
    x = tensor(3.0, requires_grad=True)
    assert grad(x, x)[0].item() == 1
    x.backward()
    assert x.grad.item() == 1
    y = leaf(3)
    seed = Tensor(np.array([1.0, 2.0, 3.0]))
    assert grad([y, y * 2], y, [seed, seed])[0].numpy().tolist() == [3, 6, 9]
    z = y * 2
    assert grad(z, z, seed)[0].numpy().tolist() == [1, 2, 3]


def test_the_same_output_twice_counts_twice_and_the_same_input_twice_gets_the_same():
    x = leaf(2)
    y = (x * x).sum()
    first, second = grad([y, y], [x, x])
    np.testing.assert_allclose(first.numpy(), 4 * x.data)
    np.testing.assert_allclose(second.numpy(), 4 * x.data)


def test_grad_with_respect_to_what_was_computed():
    x = leaf(3)
    h = ops.tanh(x)
    y = (h * h).sum()
    dh, dx = grad(y, [h, x])
    np.testing.assert_allclose(dh.numpy(), 2 * h.data)
    np.testing.assert_allclose(dx.numpy(), 2 * h.data * (1 - h.data**2), rtol=1e-14)


def test_partial_derivatives_stop_at_the_inputs():
    w = leaf(3)
    h = w * 2
    for independent, dw in ((True, 5), (False, 5 + 2 * 7)):
        found = grad((h * 7 + w * 5).sum(), [h, w], retain_graph=True, independent=independent)
        assert [g.numpy().tolist() for g in found] == [[7] * 3, [dw] * 3]
    first, second = TwoOutputs.apply_all(w * 2)
    found = grad((first * second).sum(), [first], independent=True)[0]
    np.testing.assert_array_equal(found.numpy(), second.data)
    assert grad(h, h, Tensor(np.ones(3)), independent=True)[0].numpy().tolist() == [1] * 3


def test_outputs_that_nobody_asked_for_arrive_as_none():
    TwoOutputs.seen.clear()
    x = leaf(2)
    a, b = TwoOutputs.apply_all(x)
    assert grad(a.sum(), x, retain_graph=True)[0].numpy().tolist() == [2, 2]
    assert grad(b.sum(), x, retain_graph=True)[0].numpy().tolist() == [3, 3]
    assert grad([a.sum(), b.sum()], x)[0].numpy().tolist() == [5, 5]
    assert TwoOutputs.seen == [(True, False), (False, True), (True, True)]


def test_a_node_that_no_gradient_reaches_is_passed_over():
    class Cut(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            return None

    class MustNotRun(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            raise AssertionError("no gradient can arrive here")

    x = leaf(2)
    (x + Cut.apply(MustNotRun.apply(x))).sum().backward()
    assert x.grad.numpy().tolist() == [1, 1]
    (nothing,) = grad(Cut.apply(x).sum(), x, allow_unused=True)
    assert nothing is None


def test_branches_that_do_not_lead_to_an_input_are_not_walked():
    class MustNotRun(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            raise AssertionError("this branch was not asked for")

    x, w = leaf(2), leaf(2, seed=1)
    y = (x * MustNotRun.apply(w)).sum()
    np.testing.assert_allclose(grad(y, x)[0].numpy(), w.data)


def test_an_input_without_a_path_is_named():
    x, w, frozen = leaf(2), leaf(3), tensor(np.ones(2))
    with pytest.raises(RuntimeError, match=r"no gradient for input 1 \(3,\): the outputs do not depend on it; pass allow_unused=True"):
        grad((x * frozen).sum(), [x, w])
    with pytest.raises(RuntimeError, match=r"input 0 .* it has requires_grad=False"):
        grad((x * frozen).sum(), [frozen])
    assert grad((x * frozen).sum(), [w, frozen], allow_unused=True) == (None, None)


def test_what_cannot_be_differentiated_says_so():
    x = leaf(3)
    with pytest.raises(RuntimeError, match=r"only a scalar has a gradient of its own, got \(3,\); reduce it \(.sum\(\)\)"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="no operand has requires_grad=True"):
        tensor(1.0).backward()
    with no_grad():
        y = (x * 2).sum()
    with pytest.raises(RuntimeError, match=r"computed in no_grad\(\)"):
        y.backward()
    with pytest.raises(ValueError, match=r"the gradient passed in is \(2,\) float64, the tensor that it belongs to is \(3,\) float64"):
        (x * 2).backward(Tensor(np.ones(2)))
    with pytest.raises(ValueError, match="float32"):
        (x * 2).backward(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="shorter"):
        grad([x.sum(), x.sum()], x, [Tensor(np.ones(()))])


def test_a_gradient_passed_in_may_be_an_array():
    x = leaf(3)
    (x * 2).backward(np.array([1.0, 2.0, 3.0]))
    assert x.grad.numpy().tolist() == [2, 4, 6]


def test_backward_of_one_element_of_any_shape():
    x = leaf(1, 1)
    (x * 3).backward()
    assert x.grad.numpy().tolist() == [[3]]


def test_a_backward_with_too_few_gradients_is_named():
    class Short(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, dy):
            return dy

    with pytest.raises(ValueError, match=r"Short.backward returned 1 gradients for 2 inputs"):
        Short.apply(leaf(2), leaf(2)).sum().backward()


def test_gradients_share_no_memory():
    a, b, c, d, e = (leaf(2, 3, seed=k) for k in range(5))
    seed = Tensor(np.ones((2, 3)))
    y = a + b + c.reshape(3, 2).reshape(2, 3) + d + ops.broadcast_to(e.sum(0, keepdims=True), (2, 3))
    y.retain_grad()
    y.backward(seed)
    gradients = [a.grad, b.grad, c.grad, d.grad, e.grad, y.grad, seed]
    for k, g in enumerate(gradients):
        g.data *= 10.0 ** (k + 1)  # as a user may
    for k, g in enumerate(gradients):
        assert g.numpy().tolist() == np.full((2, 3), (2 if g is e.grad else 1) * 10.0 ** (k + 1)).tolist()


def test_adding_up_gradients_changes_no_array_that_somebody_holds():
    x = leaf(3)
    kept = []
    y = x * 2
    y.register_hook(lambda g: kept.append((g, g.numpy().copy())))
    z = ops.tanh(y)
    z.register_hook(lambda g: kept.append((g, g.numpy().copy())))
    (y + y * y + z + z * z + y).sum().backward()
    before = x.grad
    value = before.numpy().copy()
    (x * 5).sum().backward()
    np.testing.assert_array_equal(before.numpy(), value)
    for g, then in kept:
        np.testing.assert_array_equal(g.numpy(), then)


def test_saved_arrays_survive_a_change_of_the_gradient():
    x = leaf(3)
    y = x * 2
    z = (y * ops.exp(y)).sum()
    z.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    x.grad.data *= 0
    x.grad = None
    z.backward()
    np.testing.assert_array_equal(x.grad.numpy(), first)


def test_hooks_of_leaves_and_of_computed_tensors_see_the_whole_gradient_once():
    x = leaf(3)
    h = x * 2
    seen = []
    x.register_hook(lambda g: seen.append(("x", g.numpy().tolist())))
    h.register_hook(lambda g: seen.append(("h", g.numpy().tolist())))
    (h + h * 3 + x).sum().backward()
    assert seen == [("h", [4] * 3), ("x", [9] * 3)]


def test_a_hook_can_replace_a_gradient_and_can_be_removed():
    x = leaf(2)
    remove = [x.register_hook(lambda g: g * 10), x.register_hook(lambda g: g + 1)]
    h = x * 2
    h.register_hook(lambda g: g * 100)
    h.sum().backward()
    assert x.grad.numpy().tolist() == [2001, 2001]
    for each in remove:
        each()
    x.grad = None
    x.sum().backward()
    assert x.grad.numpy().tolist() == [1, 1]


def test_hooks_are_called_by_grad_too_and_take_part_in_second_derivatives():
    x = leaf(2)
    h = x * x
    h.register_hook(lambda g: g * x)  # d/dx becomes x * 2x
    (dx,) = grad(h.sum(), x, create_graph=True)
    np.testing.assert_allclose(dx.numpy(), 2 * x.data**2)
    np.testing.assert_allclose(grad(dx.sum(), x)[0].numpy(), 4 * x.data)


def test_a_hook_that_changes_the_shape_is_refused():
    x = leaf(2)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(ValueError, match=r"the gradient that a hook returned is \(\) float64, the tensor that it belongs to is \(2,\)"):
        (x * 2).sum().backward()
    with pytest.raises(RuntimeError, match="requires_grad=False, no gradient will ever arrive"):
        tensor(1.0).register_hook(print)


def test_retain_grad_keeps_what_was_computed():
    x = leaf(2)
    h, unasked = (x * 2).retain_grad(), x * 3
    assert x.retain_grad() is x
    (h * h + unasked).sum().backward(retain_graph=True)
    np.testing.assert_allclose(h.grad.numpy(), 2 * h.data)
    assert unasked.grad is None
    (h * h + unasked).sum().backward()
    np.testing.assert_allclose(h.grad.numpy(), 4 * h.data)


def test_a_second_backward_through_a_freed_graph_teaches():
    x = leaf(2)
    h = x * 2
    y = (h * h).sum()
    y.backward()
    for again in (y.backward, (h * 3).sum().backward, lambda: grad(h.sum(), x)):
        with pytest.raises(RuntimeError) as caught:
            again()
        for word in ("freed by an earlier backward()", "retain_graph=True", "truncated BPTT", ".detach()"):
            assert word in str(caught.value)


def test_truncated_bptt_as_the_message_advises():
    w, h = leaf(1), tensor(np.ones(1))
    for _ in range(3):
        h = ops.tanh(h.detach() * w)
        h.sum().backward()
    assert np.isfinite(w.grad.numpy()).all()


def test_a_graph_that_is_kept_can_be_walked_again():
    x = leaf(2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(create_graph=True)
    y.backward(retain_graph=False)
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.data)
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()


def test_two_losses_over_one_trunk():
    x, w = leaf(3), leaf(3, seed=1)
    trunk = x * w
    grad((trunk * trunk).sum(), trunk)  # goes down to the trunk only, and frees no more than that
    ops.tanh(trunk).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (1 - np.tanh(x.data * w.data) ** 2) * w.data)


def test_a_graph_that_is_walked_frees_its_arrays():
    x = leaf(1000)
    y = ops.exp(x)
    z = ops.exp(y * 1e-3)
    saved = weakref.ref(z.creator.inputs[0])
    gc.disable()
    try:
        z.sum().backward()
        assert saved() is None
    finally:
        gc.enable()


@contextmanager
def without_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("walk", ["none", "backward", "retained", "second", "retain_grad", "failed"])
def test_a_graph_dies_with_its_last_tensor_without_the_garbage_collector(walk):
    class Fails(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            raise ZeroDivisionError

    x = leaf(3)
    with without_gc():
        h = ops.softmax(ops.tanh(x) * x) + ops.concatenate(TwoOutputs.apply_all(x))[:3]
        if walk == "retain_grad":
            h.retain_grad()
            h.register_hook(lambda g: g * 2)
        y = (Fails.apply(h) if walk == "failed" else h).sum()
        alive = [weakref.ref(y), weakref.ref(h), weakref.ref(h.creator), weakref.ref(h.creator.inputs[0])]
        if walk in ("backward", "retained", "retain_grad"):
            y.backward(retain_graph=walk == "retained")
        elif walk == "second":
            (dx,) = grad(y, x, create_graph=True)
            alive.append(weakref.ref(dx.creator))
            (dx * dx).sum().backward()
            del dx
        elif walk == "failed":
            with pytest.raises(ZeroDivisionError):
                y.backward()
        x.grad = None
        del h, y
        assert [each() for each in alive] == [None] * len(alive)


@pytest.mark.parametrize("walk", [False, True])
def test_a_chain_of_100_000_operations(walk):
    x = tensor(np.ones(1), requires_grad=True)
    y = x
    for _ in range(100_000):
        y = -y
    if walk:
        y.backward()
        assert x.grad.item() == 1
    del y


def test_a_deep_chain_can_be_differentiated_twice():
    x = leaf(1)
    y = x
    for _ in range(5_000):
        y = y * 1.0001
    (dx,) = grad(y * y, x, create_graph=True)
    (ddx,) = grad(dx, x)
    assert ddx.item() == pytest.approx(2 * 1.0001**10_000, rel=1e-9)


def test_no_grad_and_enable_grad_nest_and_decorate():
    x = leaf(2)
    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @no_grad()
    def quiet(x: Tensor) -> Tensor:
        return x * 2

    @enable_grad()
    def loud(x: Tensor) -> Tensor:
        return x * 2

    for _ in range(2):
        assert not quiet(x).requires_grad
        with no_grad():
            assert loud(x).requires_grad
    assert autograd.is_recording()


def test_an_exception_restores_recording():
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert autograd.is_recording()


def test_threads_do_not_see_each_others_no_grad():
    x, results, inside, done = leaf(2), [], threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        results.append((x * 2).requires_grad)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with no_grad():
        inside.set()
        done.wait(10)
        assert not (x * 2).requires_grad
    thread.join(10)
    assert results == [True]


def test_threads_differentiate_beside_each_other():
    x = leaf(50)
    found: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        y = x
        for _ in range(50):
            y = ops.tanh(y * (k + 1))
        found[k] = grad(y.sum(), x)[0].numpy()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(found)
    for k in range(4):
        work(k)
        np.testing.assert_array_equal(together[k], found[k])


def test_an_exception_in_the_middle_of_a_backward_pass_leaves_no_half_gradients():
    class Fails(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            raise ZeroDivisionError("planted")

    x, w = leaf(2), leaf(2, seed=1)
    y = (w * Fails.apply(x)).sum()
    with pytest.raises(ZeroDivisionError, match="planted"):
        y.backward(retain_graph=True)
    assert x.grad is None
    assert w.grad is None
    assert autograd.is_recording()
    np.testing.assert_allclose(grad(y, w)[0].numpy(), x.data)


def test_a_backward_pass_is_recorded_only_if_asked():
    x = leaf(2)
    assert not grad((x * x).sum(), x)[0].requires_grad
    assert grad((x * x).sum(), x, create_graph=True)[0].requires_grad
    (x * x).sum().backward(create_graph=True)
    (x.grad * x.grad).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.data + 8 * x.data)


def test_a_second_derivative_through_several_outputs_and_a_hook():
    def f(x: Tensor) -> Tensor:
        a, b = TwoOutputs.apply_all(ops.tanh(x))
        return a * b * x

    assert gradcheck(f, leaf(3))
    assert gradgradcheck(f, leaf(3))


@given(st.integers(0, 10_000))
def test_random_graphs_agree_with_forward_differentiation(seed):
    """Dual numbers carried along beside the values are an independent way to the same derivative."""
    draws = np.random.default_rng(seed)
    x = tensor(draws.uniform(0.5, 1.5), np.float64, requires_grad=True)
    values, duals = [x], [(x.item(), 1.0)]
    for _ in range(12):
        i, j = draws.integers(len(values), size=2)
        (a, da), (b, db) = duals[i], duals[j]
        match draws.integers(4):
            case 0:
                values.append(values[i] + values[j])
                duals.append((a + b, da + db))
            case 1:
                values.append(ops.tanh(values[i] * values[j]))
                y = np.tanh(a * b)
                duals.append((y, (1 - y * y) * (da * b + a * db)))
            case 2:
                values.append(values[i] / (values[j] * values[j] + 1))
                q = b * b + 1
                duals.append((a / q, da / q - a * 2 * b * db / q**2))
            case 3:
                values.append(ops.exp(ops.tanh(values[i])))
                t = np.tanh(a)
                duals.append((np.exp(t), np.exp(t) * (1 - t * t) * da))
    expected = sum(d for _, d in duals)
    total = values[0]
    for v in values[1:]:
        total = total + v
    assert grad(total, x)[0].item() == pytest.approx(expected, rel=1e-10)
