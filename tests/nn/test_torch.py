"""Layers beside PyTorch's, where it is installed: shapes drawn at random, weights carried over by name in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, nn

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

lengths_of_batches = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def carry(ours: Any, theirs: Any) -> None:
    """Our weights into PyTorch's layer, and back from it."""
    theirs.load_state_dict({key: torch.tensor(a) for key, a in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())


def assert_same_gradients(ours: Any, theirs: Any, tolerance: float) -> None:
    expected = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
    found = {key: p.grad.numpy() for key, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for key, reference in expected.items():
        np.testing.assert_allclose(found[key], reference, rtol=tolerance, atol=tolerance * max(1, abs(reference).max()), err_msg=key)


@given(
    st.sampled_from(["LSTM", "GRU", "RNN"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    lengths_of_batches,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["float32", "float64"]),
)
def test_recurrent_layers(kind: str, sizes: tuple[int, int, int], lengths: list[int], bias: bool, both: bool, dtype: str) -> None:
    D, H, K = sizes
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    ours = getattr(nn, kind)(D, H, K, bias=bias, bidirectional=both, rng=0).to(dtype)
    theirs = getattr(torch.nn, kind)(D, H, K, bias=bias, bidirectional=both).to(getattr(torch, dtype))
    carry(ours, theirs)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((max(lengths), len(lengths), D)).astype(dtype)
    mine, their = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    output, last = ours(mine, lengths=lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(their, torch.tensor(lengths), enforce_sorted=False)
    expected, expected_last = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected)
    h, expected_h = (s[0] if isinstance(s, tuple) else s for s in (last, expected_last))
    np.testing.assert_allclose(output.numpy(), expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(h.numpy(), expected_h.detach().numpy(), rtol=tolerance, atol=tolerance)
    ((output * output).sum() + h.sum()).backward()
    ((expected * expected).sum() + expected_h.sum()).backward()
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), their.grad.numpy(), rtol=tolerance, atol=10 * tolerance)
    assert_same_gradients(ours, theirs, 10 * tolerance)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda n: n.Linear(4, 3), (5, 4)),
        (lambda n: n.Conv2d(2, 4, (3, 2), stride=2, padding=1, groups=2), (3, 2, 7, 6)),
        (lambda n: n.LayerNorm((3, 4)), (2, 3, 4)),
        (lambda n: n.GroupNorm(3, 6), (4, 6, 5)),
        (lambda n: n.Sequential(n.Linear(4, 6), n.Tanh(), n.LayerNorm(6), n.ReLU(), n.Linear(6, 2), n.Sigmoid(), n.Softplus()), (5, 4)),
        (lambda n: n.Sequential(n.Conv2d(1, 2, 3), n.MaxPool2d(2), n.Flatten(), n.Linear(8, 1)), (2, 1, 6, 6)),
    ],
    ids=["Linear", "Conv2d", "LayerNorm", "GroupNorm", "Sequential", "Sequential of convolutions"],
)
def test_other_layers(make: Any, shape: tuple[int, ...]) -> None:
    ours, theirs = make(nn).to("float64"), make(torch.nn).double()
    carry(ours, theirs)
    x = np.random.default_rng(0).standard_normal(shape)
    mine, their = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = ours(mine), theirs(their)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-12)
    (y * y).sum().backward()
    (expected * expected).sum().backward()
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), their.grad.numpy(), rtol=1e-11, atol=1e-12)
    assert_same_gradients(ours, theirs, 1e-11)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_names_and_shapes_and_their_order(kind: str, options: dict[str, Any]) -> None:
    deep = {} if kind.endswith("Cell") else {"num_layers": 2, "bidirectional": True}
    ours, theirs = (getattr(n, kind)(3, 5, **deep, **options) for n in (nn, torch.nn))
    assert [(k, a.shape) for k, a in ours.state_dict().items()] == [(k, tuple(t.shape)) for k, t in theirs.state_dict().items()]


@pytest.mark.parametrize(
    ("make", "rng"),
    [
        (lambda n, **o: n.Linear(30, 40, **o), {"rng": 0}),
        (lambda n, **o: n.Embedding(50, 20, padding_idx=1, **o), {"rng": 0}),
        (lambda n, **o: n.LSTM(20, 12, **o), {"rng": 0}),
        (lambda n, **o: n.GRU(20, 12, 2, **o), {"rng": 0}),
        (lambda n, **o: n.RNNCell(20, 30, **o), {"rng": 0}),
        (lambda n, **o: n.Conv2d(6, 12, 3, groups=2, **o), {"rng": 0}),
        (lambda n, **o: n.LayerNorm(5), {}),
    ],
    ids=["Linear", "Embedding", "LSTM", "GRU", "RNNCell", "Conv2d", "LayerNorm"],
)
def test_initial_distributions(make: Any, rng: dict[str, int]) -> None:
    """The same distribution function, by the two-sample test of Kolmogorov and Smirnov, at one chance in ten thousand for each."""
    torch.manual_seed(0)
    ours, theirs = make(nn, **rng).state_dict(), make(torch.nn).state_dict()
    for key, reference in theirs.items():
        a, b = np.sort(ours[key].ravel()), np.sort(reference.numpy().ravel())
        both = np.concatenate((a, b))
        distance = abs(np.searchsorted(a, both, "right") - np.searchsorted(b, both, "right")).max() / len(a)
        assert distance <= np.sqrt(-np.log(1e-4 / 2) / len(a)), key
        if abs(b).max() < 1:  # a bounded distribution: the bound is approached, and not passed
            assert abs(a).max() <= 1.0001 * abs(b).max() * (1 + 20 / len(b)), key
