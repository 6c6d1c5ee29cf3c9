"""Layers on the emulated device: outputs, gradients and saved weights are the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minirnn as mr
from minirnn import Tensor, nn, ops
from tests.devices import DEVICE, NEEDED, counting

pytestmark = NEEDED
LENGTHS = [3, 5, 1]
MASK = np.array([[True, True, False, False], [True, False, True, True]])


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def ragged(layer: Any, x: Tensor) -> list[Tensor]:
    output, last = layer(x, lengths=LENGTHS)
    return [output, *(last if isinstance(last, tuple) else (last,))]


def attend(layer: Any, queries: Tensor, keys: Tensor) -> list[Tensor]:
    return list(layer(queries, keys, mask=MASK))


def attend_ragged(layer: Any, queries: Tensor, keys: Tensor) -> list[Tensor]:
    return [layer.of_rows(nn.pack(queries, [1, 3]), keys, mask=MASK)]


def plain(layer: Any, *inputs: Tensor) -> list[Tensor]:
    y = layer(*inputs)
    return list(y) if isinstance(y, tuple) else [y]


Call = Callable[..., list[Tensor]]
TWICE = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}
LAYERS: list[tuple[str, Callable[[], nn.Module], Call, Sequence[Any]]] = [
    ("Linear", lambda: nn.Linear(3, 4, rng=0), plain, [draw(2, 5, 3)]),
    ("Embedding", lambda: nn.Embedding(7, 3, padding_idx=2, rng=0), plain, [np.array([[1, 2, 6], [1, 1, 0]])]),
    ("Conv2d", lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, rng=0), plain, [draw(2, 2, 5, 4)]),
    ("MaxPool2d", lambda: nn.MaxPool2d(2), plain, [draw(2, 2, 4, 4)]),
    ("MaxPool2d that overlaps", lambda: nn.MaxPool2d(3, stride=1, padding=1), plain, [draw(1, 2, 4, 4)]),
    ("LayerNorm", lambda: nn.LayerNorm((3, 4)), plain, [draw(2, 3, 4)]),
    ("GroupNorm", lambda: nn.GroupNorm(2, 4), plain, [draw(2, 4, 3)]),
    ("Dropout", lambda: nn.Dropout(0.4, rng=3), plain, [draw(4, 5)]),
    ("functions", lambda: nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.ReLU()), plain, [draw(2, 3, 2)]),
    ("Attention dot", lambda: nn.Attention("dot", 3, 3), attend, [draw(2, 2, 3), draw(2, 4, 3)]),
    ("Attention general", lambda: nn.Attention("general", 2, 3, rng=0), attend, [draw(2, 2, 2), draw(2, 4, 3)]),
    ("Attention additive", lambda: nn.Attention("additive", 2, 3, 4, rng=0), attend_ragged, [draw(3, 2, 2), draw(2, 4, 3)]),
    ("LSTM", lambda: nn.LSTM(3, 4, rng=0), plain_rnn := lambda layer, x: [layer(x)[0]], [draw(4, 2, 3)]),
    ("LSTM ragged", lambda: nn.LSTM(3, 4, rng=0), ragged, [draw(5, 3, 3)]),
    ("LSTM twice, both ways", lambda: nn.LSTM(3, 2, rng=0, **TWICE), ragged, [draw(5, 3, 3)]),
    ("LSTM, one sequence", lambda: nn.LSTM(3, 2, rng=0), plain_rnn, [draw(4, 3)]),
    ("GRU twice, both ways", lambda: nn.GRU(3, 2, rng=0, batch_first=True, **TWICE), ragged, [draw(3, 5, 3)]),
    ("GRU without biases", lambda: nn.GRU(3, 2, bias=False, rng=0), ragged, [draw(5, 3, 3)]),
    ("RNN twice, both ways", lambda: nn.RNN(3, 2, rng=0, **TWICE), ragged, [draw(5, 3, 3)]),
    ("RNN relu", lambda: nn.RNN(3, 2, nonlinearity="relu", rng=0), ragged, [draw(5, 3, 3)]),
    ("LSTMCell", lambda: nn.LSTMCell(3, 4, rng=0), plain, [draw(2, 3)]),
    ("GRUCell", lambda: nn.GRUCell(3, 4, rng=0), plain, [draw(2, 3)]),
    ("RNNCell", lambda: nn.RNNCell(3, 4, rng=0), plain, [draw(2, 3)]),
]


def run(layer: nn.Module, call: Call, arrays: Sequence[Any], device: str) -> dict[str, Any]:
    """Outputs and gradients by name, in NumPy. Integers stay on the host, as ids from a data set do. Nothing waits for the device."""
    layer.to("float64").to(device)
    inputs = [Tensor(x).to(device).requires_grad_() if x.dtype.kind == "f" else x for x in arrays]
    inputs = [Tensor(x.data, requires_grad=True) if isinstance(x, Tensor) else x for x in inputs]
    with counting() as counts:
        outputs = call(layer, *inputs)
        total = sum((ops.tanh(y) * draw(*y.shape, seed=k)).sum() for k, y in enumerate(outputs))
        assert isinstance(total, Tensor)
        total.backward()
    assert not counts.synchronisations, counts.places
    assert not counts.atomics
    assert {y.device for y in outputs} == {device}
    found = {f"output {k}": y.numpy() for k, y in enumerate(outputs)}
    found.update({f"d input {k}": x.grad.numpy() for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.grad is not None})
    found.update({f"d {name}": p.grad.numpy() for name, p in layer.named_parameters() if p.grad is not None})
    return found


@pytest.mark.parametrize(("make", "call", "arrays"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])
def test_the_cpus_numbers(make: Callable[[], nn.Module], call: Call, arrays: Sequence[Any]) -> None:
    """Both in float64, where rounding is 1e-16 for each of some hundred operations; the dropout masks are the same bits."""
    expected, found = run(make(), call, arrays, "cpu"), run(make(), call, arrays, DEVICE)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12 * max(1.0, np.abs(value).max(initial=0)), err_msg=name)


@pytest.mark.parametrize("kernel", ["cupy", "numba-cuda", "unrolled"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_every_kernel_by_name(kind: Any, kernel: str) -> None:
    expected = run(kind(3, 2, rng=0, kernel="numpy"), ragged, [draw(5, 3, 3)], "cpu")
    found = run(kind(3, 2, rng=0, kernel=kernel), ragged, [draw(5, 3, 3)], DEVICE)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12 * max(1.0, np.abs(value).max()), err_msg=name)


def test_second_derivatives_of_a_layer() -> None:
    """Of the squared gradient's size, through the unrolled form."""
    results = []
    for device in ("cpu", DEVICE):
        lstm = nn.LSTM(2, 3, rng=0).to("float64").to(device)
        x = Tensor(Tensor(draw(5, 3, 2)).to(device).data, requires_grad=True)
        output, _ = lstm(x, lengths=LENGTHS)
        (dx,) = mr.grad((output * output).sum(), [x], create_graph=True)
        (dx * dx).sum().backward()
        results.append([x.grad, *(p.grad for p in lstm.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=0, atol=1e-12 * np.abs(a.numpy()).max())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_nan_stays_in_its_sequence(kind: Any) -> None:
    """Forward and in the gradients that a sequence has to itself; the weights are everybody's."""
    x = draw(5, 3, 3)
    x[2, 1] = np.nan
    with mr.device(DEVICE):
        layer = kind(3, 2, num_layers=2, bidirectional=True, rng=0).to("float64")
    inputs = [Tensor(Tensor(a).to(DEVICE).data, requires_grad=True) for a in (x, np.nan_to_num(x))]
    results = []
    for tensor in inputs:
        output, _ = layer(tensor, lengths=LENGTHS)
        (output * output).sum(-1)[:, [0, 2]].sum().backward()
        assert tensor.grad is not None
        results.append((output.numpy(), tensor.grad.numpy()))
    (found, gradient), (clean, expected) = results
    assert np.isnan(found[:5, 1]).any()
    np.testing.assert_allclose(found[:, [0, 2]], clean[:, [0, 2]], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gradient[:, [0, 2]], expected[:, [0, 2]], rtol=1e-12, atol=1e-14)


def test_a_cpu_kernel_is_refused_with_the_reason() -> None:
    with mr.device(DEVICE):
        lstm, x = nn.LSTM(2, 3, kernel="numba", rng=0), mr.tensor(draw(2, 1, 2), dtype="float32")
    kind = DEVICE.partition(":")[0]
    with pytest.raises(RuntimeError, match=rf"kernel='numba': .* it runs on cpu, and the device is {kind}; can run: cupy, .*unrolled"):
        lstm(x)


def test_weights_through_a_file(tmp_path: Path) -> None:
    with mr.device(DEVICE):
        saved = nn.Sequential(nn.Embedding(5, 3, rng=1), nn.Linear(3, 2, rng=2))
    mr.save(saved, tmp_path / "weights.safetensors")
    loaded = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)).to(DEVICE)
    loaded.load_state_dict(mr.load(tmp_path / "weights.safetensors"))
    for (name, a), b in zip(saved.named_parameters(), loaded.parameters(), strict=True):
        assert (a.device, b.device) == (DEVICE, DEVICE)
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


def test_losses() -> None:
    weights = np.array([1.0, 0.0, 2.0])
    logits, targets, x = draw(3, 4), np.array([1, 0, 3]), draw(3)
    logits[1] = np.nan
    results = []
    for device in ("cpu", DEVICE):
        place = [Tensor(Tensor(a).to(device).data, requires_grad=True) for a in (logits, x)]
        y, z = place
        losses = [
            ops.cross_entropy(y, targets, weights=weights, label_smoothing=0.1),
            ops.mse_loss(z, x[::-1].copy(), weights=weights),
            ops.gaussian_nll_loss(z, z * 0.1, x[::-1].copy(), weights=weights, reduction="sum"),
            ops.binary_cross_entropy_with_logits(z, weights / 2, reduction="none").sum(),
        ]
        total = losses[0] + losses[1] + losses[2] + losses[3]
        total.backward()
        results.append([*losses, y.grad, z.grad])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-12, atol=1e-14)


def test_what_the_host_knows_is_checked_and_what_it_does_not_is_not() -> None:
    logits = Tensor(draw(2, 3)).to(DEVICE)
    with pytest.raises(IndexError, match=r"targets span 0..3, the logits have classes 0..2"):
        ops.cross_entropy(logits, np.array([0, 3]))
    with pytest.raises(IndexError, match=r"take_rows: id 2 is outside 0..1"):
        ops.take_rows(logits, np.array([2]))
    with pytest.raises(IndexError, match=r"getitem: an index is outside -2..1, axis 0 of x \(2, 3\)"):
        logits[np.array([-3])]
    with pytest.raises(IndexError, match=r"the mask \(3,\) must have the shape of x \(2, 3\) from axis 0 on"):
        logits[np.array([True, False, True])]
    with pytest.raises(ValueError, match="their weights add up to 0"):
        ops.cross_entropy(logits, np.array([0, 1]), weights=np.zeros(2))
    zeros = Tensor(np.zeros(2)).to(DEVICE).data
    assert np.isnan(float(ops.cross_entropy(logits, np.array([0, 1]), weights=zeros)))


@pytest.mark.parametrize(
    "index",
    [
        (np.array([[True, False, True], [False, True, True]]),),
        (slice(None), np.array([True, False, True])),
        (np.array([1, -2, 1]), slice(0, 2)),
        (Ellipsis, np.array([2, 0]), None),
        (None, [0, 1], 2),
    ],
    ids=str,
)
def test_host_indices_pick_what_numpy_picks(index: Any) -> None:
    a = draw(2, 3)
    x = Tensor(Tensor(a).to(DEVICE).data, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), a[index])
    y.sum().backward()
    counts = np.zeros_like(a)
    np.add.at(counts, index, 1)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), counts)
