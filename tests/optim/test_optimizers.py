"""Optimisers against their equations and PyTorch's, and their state through a file and back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from minirnn import Tensor, nn, optim
from minirnn.nn.utils import clip_grad_norm_, grad_norm

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
]


def model_of(*shapes: tuple[int, ...], dtype: str = "float64") -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def pull(parameters: Any, step: int, skip: int | None = None) -> None:
    """The gradient of a bumpy function, None for one parameter at odd steps."""
    for k, p in enumerate(parameters):
        g = np.asarray(np.sin(3 * p.data + k) + 0.1 * p.data, dtype=p.dtype)
        p.grad = None if k == skip and step % 2 else Tensor(g)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_twenty_steps_are_pytorchs(name: str, options: dict[str, Any], dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    ours = model_of((3, 4), (5,), (), dtype=dtype)
    theirs = [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in ours]
    mine, their = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for step in range(20):
        pull(ours, step, skip=1)
        for k, q in enumerate(theirs):
            q.grad = None if k == 1 and step % 2 else torch.sin(3 * q.detach() + k) + 0.1 * q.detach()
        mine.step()
        their.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_adam_is_its_equations() -> None:
    (p,) = model_of((4,))
    x, m, v = p.data.copy(), np.zeros(4), np.zeros(4)
    optimizer = optim.Adam([p])
    for t in range(1, 8):
        g = np.cos(x)
        p.grad = Tensor(np.cos(p.data))
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(p.data, x, rtol=1e-13)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_resumed_run_is_the_run_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    whole, resumed = model_of((3, 4), (5,), dtype="float32"), model_of((3, 4), (5,), dtype="float32")
    first = getattr(optim, name)([("w", whole[0]), ("b", whole[1])], **options)
    for step in range(7):
        pull(whole, step)
        first.step()
    state = first.state_dict()
    scalars = json.loads(json.dumps(state["scalars"]))
    for p, q in zip(whole, resumed, strict=True):
        q.data[...] = p.data
    second = getattr(optim, name)([("w", resumed[0]), ("b", resumed[1])], lr=99.0)
    second.load_state_dict({"arrays": state["arrays"], "scalars": scalars})
    for optimizer, parameters in ((first, whole), (second, resumed)):
        for step in range(3):
            pull(parameters, step)
            optimizer.step()
    for p, q in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_clipping_within_the_step_is_clipping_before_it(kind: Any) -> None:
    a, b = model_of((3, 4), (5,)), model_of((3, 4), (5,))
    fused, plain = kind(a), kind(b)
    for step in range(4):
        pull(a, step)
        pull(b, step)
        norm = clip_grad_norm_(b, 0.5)
        assert fused.step(max_norm=0.5) == pytest.approx(norm, rel=1e-14)
        assert plain.step() is None
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-13)


def test_a_gradient_that_is_not_finite_stops_the_step_and_changes_nothing() -> None:
    parameters = model_of((2,), (3,))
    optimizer = optim.Adam([("good", parameters[0]), ("bad", parameters[1])])
    pull(parameters, 0)
    assert parameters[1].grad is not None
    parameters[1].grad.data[1] = np.nan
    before = [p.data.copy() for p in parameters]
    with pytest.raises(
        FloatingPointError, match=r"Adam.step: the norm of the gradients is nan: the gradients of bad \(3,\) are not finite"
    ):
        optimizer.step(max_norm=1.0)
    for p, array in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.data, array)
    assert not optimizer.state


def test_groups_have_options_of_their_own() -> None:
    a, b = model_of((2,), (2,))
    start = b.data.copy()
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.0}], lr=0.1)
    pull([a, b], 0)
    optimizer.step()
    np.testing.assert_array_equal(b.data, start)
    assert optimizer.lr == 0.1
    optimizer.lr = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    optimizer.zero_grad()
    assert a.grad is None


def test_gradients_in_any_memory_layout_are_only_read() -> None:
    (p,) = model_of((3, 4))
    grad = np.broadcast_to(np.float64(1.0), (3, 4))
    transposed = np.asfortranarray(np.ones((3, 4)))
    before = p.data.copy()
    for g in (grad, transposed):
        p.grad = Tensor(g)
        optim.Adam([p], lr=0.1).step(max_norm=1.0)
    np.testing.assert_array_equal(transposed, 1)
    np.testing.assert_allclose(p.data, before - 0.2, rtol=1e-6)


@pytest.mark.parametrize("norm_type", [2.0, math.inf])
def test_clipping_replaces_gradients_and_never_writes_to_them(norm_type: float) -> None:
    a, b, frozen = model_of((2,), (3,), (1,))
    shared = np.full(2, 3.0)
    a.grad, b.grad = Tensor(shared), Tensor(np.array([0.0, 4.0, 0.0]))
    norm = clip_grad_norm_([a, b, frozen], 1.0, norm_type)
    assert norm == pytest.approx(math.sqrt(9 + 9 + 16) if norm_type == 2 else 4.0)
    np.testing.assert_allclose(a.grad.numpy(), shared / norm, rtol=1e-6)
    np.testing.assert_array_equal(shared, 3)
    assert frozen.grad is None
    kept = a.grad
    assert clip_grad_norm_([a, b], 10.0, norm_type) == pytest.approx(1.0, rel=1e-6)
    assert a.grad is kept
    b.grad = Tensor(np.array([0, np.inf, 0]))
    with pytest.raises(FloatingPointError, match=r"norm of the gradients is inf: the gradients of parameter 1 \(3,\) are not finite"):
        clip_grad_norm_([a, b], 1.0, norm_type, error_if_nonfinite=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: optim.Adam([]), ValueError, "Adam: no parameters to learn"),
        (lambda p: optim.Adam([p], lr=-1), ValueError, "Adam: lr must not be negative, got -1"),
        (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), ValueError, r"AdamW: betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov needs momentum > 0 and dampening = 0"),
        (lambda p: optim.SGD([p, p]), ValueError, "SGD: parameter '1' is given twice"),
        (lambda p: optim.SGD([{"params": [p], "rate": 1}]), ValueError, "SGD: unknown options rate; there are lr, momentum"),
        (lambda p: optim.SGD([Tensor(np.zeros(2))]), TypeError, r"SGD: params must be Parameters or \(name, Parameter\) pairs, got Tensor"),
    ],
)
def test_errors_say_what_is_wrong(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(nn.Parameter(np.zeros(2)))


def test_a_state_that_does_not_fit_is_refused() -> None:
    a, b = model_of((2,), (2,))
    adam = optim.Adam([("a", a), ("b", b)])
    pull([a, b], 0)
    adam.step()
    state = adam.state_dict()
    with pytest.raises(ValueError, match="the state is Adam's, this is SGD"):
        optim.SGD([("a", a), ("b", b)]).load_state_dict(state)
    with pytest.raises(ValueError, match="the state and this Adam differ in b, c"):
        optim.Adam([("a", a), ("c", b)]).load_state_dict(state)
    with pytest.raises(ValueError, match="parameters in another order"):
        optim.Adam([("b", b), ("a", a)]).load_state_dict(state)
    other = optim.Adam([("a", model_of((3,))[0]), ("b", b)])
    with pytest.raises(ValueError, match=r"m\.a is \(2,\), the parameter a is \(3,\)"):
        other.load_state_dict(state)
    assert not other.state
    del state["arrays"]["v.b"]
    with pytest.raises(ValueError, match="the parameter b needs t, m, v, the state has t, m"):
        adam.load_state_dict(state)


def test_a_single_tensor_is_a_list_of_one() -> None:
    p = nn.Parameter(np.zeros((2, 2)))
    (p * Tensor(np.array([[3.0, 0], [0, 4]]))).sum().backward()
    assert grad_norm(p) == pytest.approx(5)
    assert clip_grad_norm_(p, 1.0) == pytest.approx(5)
    assert grad_norm(p) == pytest.approx(1, rel=1e-6)
