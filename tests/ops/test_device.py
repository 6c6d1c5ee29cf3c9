"""Every operation on the emulated device: the results, gradients and gradients of gradients are the CPU's, and nothing waits unasked.

The device is `minirnn.kernels.emulator.stand_in`, which refuses what CuPy refuses and counts what would make the host wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from minirnn import nn, no_grad, ops
from minirnn.autograd import Function, grad
from minirnn.checkpointing import _Checkpoint
from minirnn.device import array_module, to_device
from minirnn.ops import elementwise, kalman
from minirnn.study.gradcheck import gradcheck
from minirnn.tensor import Tensor
from tests.devices import DEVICE, NEEDED, counting

from .arrays import LAYOUTS, Array, normal
from .cases import CASES, Case

pytestmark = NEEDED
# A cast by way of long doubles, which no GPU has; and Numba's Kalman filter, which has no twin on a device.
ON_CPU_ALONE = {(elementwise.Cast, 0), (kalman.KalmanLogLikelihood, 1)}
EVERY = [
    pytest.param(function, case, id=f"{function.__name__}-{k}")
    for function, cases in CASES.items()
    for k, case in enumerate(cases)
    if (function, k) not in ON_CPU_ALONE
]


def moved(*arrays: Array, grad: bool = True) -> list[Tensor]:
    return [Tensor(to_device(np.array(x), DEVICE), requires_grad=grad) for x in arrays]


def beside(x: Array, like: Tensor) -> Tensor:
    return Tensor(to_device(x, like.device))


def everything(case: Case, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The outputs, the gradient of their inner product with something, and the gradient of the gradient's."""
    outputs = case.f(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    seeds = [beside(normal(*y.shape, seed=k).astype(y.dtype), y) for k, y in enumerate(outputs)]
    first = grad(outputs, inputs, seeds, create_graph=True, allow_unused=True)
    known = [g for g in first if g is not None and g.requires_grad]
    if not known:
        return [*outputs, *first]
    seeds = [beside(normal(*g.shape, seed=7 + k).astype(g.dtype), g) for k, g in enumerate(known)]
    return [*outputs, *first, *grad(known, inputs, seeds, allow_unused=True)]


def assert_same(found: Tensor | Array | None, expected: Tensor | Array | None, tolerance: float) -> None:
    """Equal to `tolerance`, relative to the largest number."""
    if found is None or expected is None:
        assert found is expected
        return
    a, b = (x.numpy() if isinstance(x, Tensor) else to_device(x, "cpu") for x in (found, expected))
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max(initial=0))))


@pytest.mark.parametrize(("function", "case"), EVERY)
def test_the_cpus_numbers_to_second_order(function: type[Function], case: Case) -> None:
    """Both compute in float64; a different order of the sums, or another library's exp, changes the last of some 16 digits."""
    expected = everything(case, [Tensor(x, requires_grad=True) for x in case.inputs])
    found = everything(case, moved(*case.inputs))
    for a, b in zip(found, expected, strict=True):
        assert a is None or function is elementwise.ToDevice or a.device == DEVICE
        assert_same(a, b, 1e-11)


@pytest.mark.parametrize(("function", "case"), [p for p in EVERY if p.values[1].float32])
def test_float32_stays_float32(function: type[Function], case: Case) -> None:
    """... and differs from the CPU's by rounding: 1e-7 for each of some hundred dependent operations, relative to the largest number."""
    results = []
    for make in (lambda x: Tensor(x, requires_grad=True), lambda x: moved(x)[0]):
        inputs = [make(x.astype(np.float32)) for x in case.inputs]
        outputs = case.f(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        gradients = grad(outputs, inputs, [beside(np.ones(y.shape, y.dtype), y) for y in outputs], allow_unused=True)
        results.append([*outputs, *gradients])
    for a, b in zip(*results, strict=True):
        assert_same(b, a, 1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_fused_recurrence_against_finite_differences(name: str) -> None:
    function = {f.__name__.lower(): f for f in CASES}[name]
    case = CASES[function][0]
    assert gradcheck(case.f, moved(*case.inputs))


def test_a_cast_on_the_device() -> None:
    (x,) = moved(normal(3).astype(np.float32))
    y = x.to("float64")
    assert (y.dtype, y.device) == (np.float64, DEVICE)
    (y * y).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())


def test_half_precision_where_it_is_natural() -> None:
    """float16 through a layer: float64's result, but for what some ten operations round, each to 11 bits."""
    lstm = nn.LSTM(3, 4, rng=0).to("float16")
    x = normal(5, 2, 3).astype(np.float16)
    with no_grad():
        expected, _ = nn.LSTM(3, 4, rng=0).to("float64")(Tensor(x.astype(np.float64)))
        found, _ = lstm.to(DEVICE)(Tensor(x).to(DEVICE))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=10 * 2.0**-11)


def test_what_is_not_definite_is_nan_and_not_an_unfinished_factor() -> None:
    good, bad = np.array([[4.0, 2.0], [2.0, 3.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    (stack,) = moved(np.stack([good, bad, good + np.nan, np.array([[4.0, 99.0], [2.0, 3.0]])]))
    found = ops.cholesky(stack).numpy()
    np.testing.assert_allclose(found[0], np.linalg.cholesky(good), rtol=1e-15)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[3], found[0])  # what lies above the diagonal is never read


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_true_factor_is_never_taken_for_an_unfinished_one(n: int, dtype: type) -> None:
    """Also where rounding is at its worst: 200 matrices whose condition reaches 1 / eps."""
    rng = np.random.default_rng(n)
    q, _ = np.linalg.qr(rng.standard_normal((200, n, n)))
    values = np.geomspace(1, n * 100 * np.finfo(dtype).eps, n)
    a = ((q * values) @ q.swapaxes(-1, -2)).astype(dtype)
    (x,) = moved(a)
    found = ops.cholesky(x).numpy()
    assert np.isfinite(found).all()


def test_an_unfinished_factor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cuSOLVER leaves where it stops: the columns before are done, the others are not."""
    (x,) = moved(np.array([[[1.0, 2.0], [2.0, 1.0]], [[4.0, 2.0], [2.0, 3.0]]]))
    xp = array_module(x.data)
    left = Tensor(np.array([[[1.0, 0.0], [2.0, -3.0]], [[2.0, 0.0], [1.0, np.sqrt(2)]]])).to(DEVICE).data
    monkeypatch.setattr(xp.linalg, "cholesky", lambda a: left)
    found = ops.cholesky(x).numpy()
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], left.get()[1])


# A checkpoint compares its two runs, which it says; what goes to the CPU is waited for there.
WAITS = {_Checkpoint, elementwise.ToDevice}


@pytest.mark.parametrize(("function", "case"), EVERY)
def test_nothing_waits_and_nothing_is_added_atomically(function: type[Function], case: Case) -> None:
    """Neither in the forward pass nor backward: the order of every sum is the program's, and the host only gives orders."""
    inputs = moved(*case.inputs)
    with counting() as counts:
        outputs = case.f(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        grad(outputs, inputs, [y.detach() for y in outputs], allow_unused=True)
    assert not counts.atomics
    assert (counts.synchronisations > 0) == (function in WAITS), counts.places


AWKWARD: dict[str, Any] = {
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: (x + 1).sum() * 0.5,
    "max": lambda x: x.max(1) if x.shape[1] else x,
    "softmax": lambda x: ops.softmax(x, 0),
    "log_softmax": lambda x: ops.log_softmax(x, 1) if x.shape[1] else x,
    "logsumexp": lambda x: ops.logsumexp(x, 1),
    "layer_norm": lambda x: ops.layer_norm(x, x.shape[1]) if x.shape[1] else x,
    "dropout": lambda x: ops.dropout(x, 0.5, rng=1),
    "take_rows": lambda x: ops.take_rows(x, np.arange(2 * x.shape[0]) // 2),
    "put_rows": lambda x: ops.put_rows(x, np.arange(x.shape[0]) // 2, x.shape[0] + 1),
    "getitem": lambda x: x[np.arange(x.shape[0]) // 2, ..., None],
    "cross_entropy": lambda x: ops.cross_entropy(x, np.zeros(x.shape[0], int), reduction="none") if x.shape[1] else x,
    "matmul": lambda x: x @ x.T,
    "linear": lambda x: ops.linear(x, x, None),
    "concatenate": lambda x: ops.concatenate([x, x * 2, x[:0]], 0),
    "where": lambda x: ops.where(np.arange(x.shape[1]) % 2 == 0, x, -x),
    "clip": lambda x: ops.clip(x, -0.5, 0.5),
}


# What is copied to a device arrives in C or in Fortran order; these make the other strides of LAYOUTS there.
RESTRIDED: dict[str, Any] = {
    "every other element": lambda x: array_module(x).repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: array_module(x).ascontiguousarray(x[::-1])[::-1],
}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((0, 3), "contiguous"),
        ((3, 0), "contiguous"),
        ((1, 1), "contiguous"),
        ((7, 5), "Fortran order"),
        ((5, 7), "every other element"),
        ((2, 131), "backwards"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_shapes_and_layouts(name: str, shape: tuple[int, ...], layout: str) -> None:
    """Nothing in it, one number, primes, several warps; columns first, every other element, rows backwards."""
    results = []
    for device in ("cpu", DEVICE):
        array = Tensor(LAYOUTS[layout](normal(*shape))).to(device).data
        x = Tensor(RESTRIDED[layout](array) if device != "cpu" and layout in RESTRIDED else array, requires_grad=True)
        y = AWKWARD[name](x)
        (dx,) = grad(y, [x], [beside(normal(*y.shape, seed=2), y)], allow_unused=True)
        results.append((y, dx))
    for a, b in zip(*results, strict=True):
        assert_same(b, a, 1e-12)
