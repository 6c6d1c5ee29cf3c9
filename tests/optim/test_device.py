"""Optimisers on the emulated device; and that a training step never makes the host wait, which is counted.

A step is what the device is told to do: the forward pass, the loss, the backward pass, clipping and the update. Whoever wants a number
of it reads it, and waits, once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minirnn as mr
from minirnn import Tensor, nn, ops, optim
from minirnn.nn.utils import clip_grad_norm_, grad_norm
from tests.devices import DEVICE, NEEDED, counting, schedule

pytestmark = NEEDED
OPTIMISERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
]


def parameters(device: str, dtype: str = "float64") -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    with mr.device(device):
        return [nn.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in ((3, 4), (5,), ())]


def pull(ps: list[nn.Parameter], step: int) -> None:
    for k, p in enumerate(ps):
        g = np.asarray(np.sin(3 * p.numpy() + k) + 0.1 * p.numpy(), dtype=p.dtype)
        p.grad = None if k == 1 and step % 2 else Tensor(g).to(p.device)


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_ten_steps_are_the_cpus(name: str, options: dict[str, Any]) -> None:
    here, there = parameters("cpu"), parameters(DEVICE)
    a, b = getattr(optim, name)(here, **options), getattr(optim, name)(there, **options)
    for step in range(10):
        pull(here, step)
        pull(there, step)
        norm = a.step(max_norm=0.5)
        lazy = b.step(max_norm=0.5)
        assert isinstance(norm, float)
        assert isinstance(lazy, Tensor)
        assert lazy.device == DEVICE
        assert float(lazy) == pytest.approx(norm, rel=1e-12)
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-11)
    for key, state in a.state.items():
        assert b.state[key].keys() == state.keys()


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_changes_nothing(name: str, options: dict[str, Any], bad: float) -> None:
    """... and the step after it is the step that would have come, but for the number of steps that Adam has counted."""
    ps = parameters(DEVICE)
    optimizer = getattr(optim, name)(ps, **options)
    pull(ps, 0)
    optimizer.step(max_norm=1.0)
    before = [p.numpy() for p in ps]
    state = optimizer.state_dict()["arrays"]
    pull(ps, 2)
    assert ps[1].grad is not None
    ps[1].grad = ps[1].grad * bad
    assert not math.isfinite(float(optimizer.step(max_norm=1.0)))
    for p, value in zip(ps, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
    after = optimizer.state_dict()["arrays"]
    assert after.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)
    pull(ps, 4)
    optimizer.step(max_norm=1.0)
    assert all(np.isfinite(p.numpy()).all() and not np.array_equal(p.numpy(), old) for p, old in zip(ps, before, strict=True))


@pytest.mark.parametrize("norm_type", [2.0, math.inf])
def test_clipping_is_the_cpus(norm_type: float) -> None:
    for largest in (0.5, 100.0):
        here, there = parameters("cpu"), parameters(DEVICE)
        pull(here, 1)
        pull(there, 1)
        with counting() as counts:
            norm = clip_grad_norm_(there, largest, norm_type)
        assert not counts.synchronisations, counts.places
        assert float(norm) == pytest.approx(clip_grad_norm_(here, largest, norm_type), rel=1e-12)
        for p, q in zip(here, there, strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None and q.grad is not None:
                np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-12)
        assert float(grad_norm(there, norm_type)) == pytest.approx(grad_norm(here, norm_type), rel=1e-12)
    pull(there, 1)
    assert there[0].grad is not None
    there[0].grad = there[0].grad * math.nan
    with pytest.raises(FloatingPointError, match=r"the gradients of parameter 0 \(3, 4\) are not finite"):
        clip_grad_norm_(there, 1.0, error_if_nonfinite=True)


def test_a_resumed_run_on_the_device_is_the_run_bit_for_bit() -> None:
    whole, resumed = parameters(DEVICE, "float32"), parameters(DEVICE, "float32")
    first, second = optim.Adam(whole, lr=0.1), optim.Adam(resumed, lr=9.0)
    for step in range(3):
        pull(whole, step)
        first.step(max_norm=1.0)
    for p, q in zip(whole, resumed, strict=True):
        q.data[...] = p.data
    second.load_state_dict(first.state_dict())
    for ps, optimizer in ((whole, first), (resumed, second)):
        pull(ps, 3)
        optimizer.step(max_norm=1.0)
    for p, q in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


class Tagger(nn.Module):
    """A class for each token of ragged sequences: embedding, two recurrent layers with dropout, layer norm, attention, a linear map."""

    def __init__(self, kind: Any) -> None:
        self.embedding = nn.Embedding(9, 4, padding_idx=0, rng=0)
        self.recurrence = kind(4, 3, num_layers=2, bidirectional=True, dropout=0.2, rng=1)
        self.norm = nn.LayerNorm(6)
        self.attention = nn.Attention("general", 6, 6, rng=2)
        self.out = nn.Linear(6, 5, rng=3)

    def forward(self, tokens: Any, packing: nn.Packing) -> Tensor:
        output, _ = self.recurrence(self.embedding(tokens), lengths=packing)  # (T, N, 6)
        states = self.norm(output.swapaxes(0, 1))  # (N, T, 6)
        context, _ = self.attention(states, states, mask=packing.mask())
        return self.out(ops.dropout(context, 0.1, rng=self.recurrence.dropout.rng))  # (N, T, 5)


def step(model: Tagger, optimizer: optim.Optimizer, read: bool = False) -> tuple[Tensor, Any]:
    packing = nn.Packing([4, 2, 3])
    tokens = np.random.default_rng(0).integers(0, 9, (4, 3))
    targets = np.random.default_rng(1).integers(0, 5, (3, 4))
    loss = ops.cross_entropy(model(tokens, packing), targets, weights=packing.mask(), label_smoothing=0.1)
    if read:
        float(loss)
    loss.backward()
    norm = optimizer.step(max_norm=1.0)
    optimizer.zero_grad()
    return loss, norm


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("make", [lambda ps: optim.Adam(ps, lr=0.01), lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9)], ids=["Adam", "SGD"])
def test_a_training_step_never_waits_for_the_device(kind: Any, make: Any) -> None:
    """... and is the CPU's step: the same losses and norms, dropout and all, to rounding in float32."""
    seen: dict[str, list[float]] = {}
    for device in ("cpu", DEVICE):
        with mr.device(device):
            model = Tagger(kind)
        optimizer = make(model.named_parameters())
        results = []
        with counting() as counts:
            for _ in range(3):
                results += step(model, optimizer)
        assert not counts.synchronisations, counts.places
        assert not counts.atomics
        seen[device] = [float(value) for value in results]
    np.testing.assert_allclose(seen[DEVICE], seen["cpu"], rtol=2e-5)
    assert seen["cpu"][-2] < seen["cpu"][0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_schedule_of_the_threads_changes_no_bit(kind: Any) -> None:
    """Three steps with the threads of every kernel in order, in reverse, and in a drawn order: the same weights, to the last bit."""
    results = []
    for seed in (0, 1, 1009):
        with mr.device(DEVICE), schedule(seed):
            model = Tagger(kind)
            optimizer = optim.Adam(model.parameters(), lr=0.01)
            for _ in range(3):
                step(model, optimizer)
        results.append(model.state_dict())
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


def test_a_batch_moves_to_the_device_once() -> None:
    """Of a batch whose packing is kept, only the tokens and the targets move at every step; places, masks and step sizes have moved."""
    with mr.device(DEVICE):
        model = Tagger(nn.LSTM)
    packing, rng = nn.Packing([4, 2, 3]), np.random.default_rng(0)
    tokens, targets = rng.integers(0, 9, (4, 3)), rng.integers(0, 5, (3, 4))
    for again in (False, True):
        with counting() as counts:
            ops.cross_entropy(model(tokens, packing), targets, weights=packing.mask()).backward()
        assert counts.to_device >= 2
        if again:
            assert counts.to_device_bytes == tokens.nbytes + targets.nbytes, counts.places


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_half_precision_trains(kind: Any, dtype: str, bits: int) -> None:
    """The losses and norms are float32's, but for what some sixty operations in a row round: each by half a unit of 11 or 8 bits, sums of
    products in float32. Rounding goes either way, so their effects add up as the square root of their number."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")
    seen: dict[str, list[float]] = {}
    for each in ("float32", dtype):
        with mr.device(DEVICE):
            model = Tagger(kind).to(each)
        optimizer = optim.SGD(model.named_parameters(), lr=0.5)
        with counting() as counts:
            results = [value for _ in range(3) for value in step(model, optimizer)]
        assert not counts.synchronisations, counts.places
        assert {str(p.dtype) for p in model.parameters()} == {each}
        seen[each] = [float(value) for value in results]
    np.testing.assert_allclose(seen[dtype], seen["float32"], rtol=math.sqrt(60) * 2.0**-bits)
    assert seen[dtype][-2] < seen[dtype][0]


def test_the_norm_of_small_half_precision_gradients_is_theirs() -> None:
    """2^-13 is a number of float16, its square is none: CuPy rounds the products of `vdot` before it adds them."""
    with mr.device(DEVICE):
        p = nn.Parameter(np.zeros(64, np.float16))
        p.grad = mr.tensor(np.full(64, 2.0**-13, np.float16))
        assert float(nn.utils.grad_norm([p])) == 2.0**-10


@pytest.mark.parametrize("name", ["where", "softmax", "log_softmax", "logsumexp", "max"])
def test_bfloat16_stays_what_it_is(name: str) -> None:
    """CuPy's `where` gives float32 for bfloat16; operations do not."""
    pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")
    with mr.device(DEVICE):
        x = mr.tensor(np.arange(6.0).reshape(2, 3), dtype="bfloat16", requires_grad=True)
        mask = np.array([[True, False, True], [True, True, False]])
        y = {
            "where": lambda: ops.where(mask, x, 0),
            "softmax": lambda: ops.softmax(x, -1, mask=mask),
            "log_softmax": lambda: ops.log_softmax(x, -1),
            "logsumexp": lambda: ops.logsumexp(x, -1),
            "max": lambda: ops.max(x, -1),
        }[name]()
        y.sum().backward()
    assert str(y.dtype) == str(x.grad.dtype) == "bfloat16"


def test_reading_the_loss_is_one_wait_and_is_found() -> None:
    """The count that the test above rests on finds what it is to find, and says where it is."""
    with mr.device(DEVICE):
        model = Tagger(nn.LSTM)
    optimizer = optim.Adam(model.parameters())
    with counting() as counts:
        step(model, optimizer, read=True)
    assert counts.synchronisations == 1
    assert any("float()" in place for place in counts.places)
    with counting() as counts:
        loss, norm = step(model, optimizer)
        both = np.array([float(loss), float(norm)])
    assert counts.synchronisations == 2
    assert np.isfinite(both).all()
