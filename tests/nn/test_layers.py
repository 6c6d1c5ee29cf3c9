"""Layers that are not recurrent, and initial values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, nn
from minirnn.nn import init
from minirnn.study import gradcheck


def draw(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape)


def as_function(layer: nn.Module) -> Any:
    """f(inputs, parameters): the layer with its parameters given as arguments, for gradcheck."""
    owners = [(module, name) for module in layer.modules() for name, value in module.members() if isinstance(value, nn.Parameter)]

    def f(*tensors: Tensor) -> Any:
        for (module, name), value in zip(owners, tensors[-len(owners) :] if owners else (), strict=True):
            setattr(module, name, value)
        return layer(*tensors[: len(tensors) - len(owners)])

    return f


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (nn.Linear(3, 4, rng=0), [(2, 5, 3)]),
        (nn.Conv2d(2, 4, (2, 3), stride=2, padding=1, groups=2, rng=0), [(2, 2, 5, 4)]),
        (nn.MaxPool2d(2), [(2, 2, 4, 4)]),
        (nn.LayerNorm((3, 4)), [(2, 3, 4)]),
        (nn.GroupNorm(2, 4), [(2, 4, 3)]),
        (nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.ReLU()), [(2, 3, 2)]),
        (nn.LSTMCell(3, 4, rng=0), [(2, 3)]),
        (nn.GRUCell(3, 4, rng=0), [(2, 3)]),
        (nn.RNNCell(3, 4, rng=0), [(2, 3)]),
        (nn.Attention("dot", 3, 3), [(2, 4, 3), (2, 5, 3)]),
        (nn.Attention("general", 2, 3, rng=0), [(2, 4, 2), (2, 5, 3)]),
        (nn.Attention("additive", 2, 3, hidden_size=4, rng=0), [(2, 4, 2), (2, 5, 3)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_gradients_are_derivatives(layer: nn.Module, shapes: list[tuple[int, ...]]) -> None:
    layer.to("float64")
    inputs = [Tensor(draw(*shape), requires_grad=True) for shape in shapes]
    assert gradcheck(as_function(layer), [*inputs, *layer.parameters()], elementwise=0)


def test_embedding_gradient_counts_every_use_but_padding() -> None:
    layer = nn.Embedding(5, 2, padding_idx=-1, rng=0)
    assert layer.padding_idx == 4
    assert not layer.weight.data[4].any()
    ids = np.array([[1, 4, 1], [0, 1, 4]])
    y = layer(ids)
    np.testing.assert_array_equal(y.numpy(), layer.weight.data[ids])
    y.sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 3, 0, 0, 0])
    np.testing.assert_array_equal(layer([[2]]).numpy(), layer.weight.data[[[2]]])


def test_dropout_keeps_the_mean_and_is_off_at_test() -> None:
    p, n = 0.3, 200_000
    layer = nn.Dropout(p, rng=0)
    x = Tensor(np.ones(n, "float32"), requires_grad=True)
    y = layer(x)
    kept = y.numpy() != 0
    np.testing.assert_allclose(y.numpy()[kept], 1 / (1 - p), rtol=1e-6)
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / n)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    again = nn.Dropout(p, rng=0)(x)
    np.testing.assert_array_equal(again.numpy(), y.numpy())


@given(
    st.sampled_from(["dot", "general", "additive"]),
    st.integers(1, 4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_attention_is_the_sum_written_out(kind: Any, L: int, lengths: list[int]) -> None:
    N, T, H = len(lengths), 6, 3
    layer = nn.Attention(kind, H, H, hidden_size=4, rng=0).to("float64")
    rng = np.random.default_rng(0)
    queries, keys = rng.standard_normal((N, L, H)), rng.standard_normal((N, T, H))
    mask = np.arange(T) < np.array(lengths)[:, None]
    keys[~mask] = np.nan
    weights = {name: a.T for name, a in layer.state_dict().items()}

    def score(q: Any, k: Any) -> float:
        if kind == "additive":
            return float(np.tanh(q @ weights["query.weight"] + k @ weights["key.weight"]) @ weights["score.weight"][:, 0])
        return float((q if kind == "dot" else q @ weights["query.weight"]) @ k)

    leaf, asked = Tensor(keys, requires_grad=True), Tensor(queries, requires_grad=True)
    context, found = layer(asked, leaf, mask)
    for n, length in enumerate(lengths):
        for row in range(L):
            odds = np.exp([score(queries[n, row], keys[n, t]) for t in range(length)])
            expected = odds / odds.sum()
            np.testing.assert_allclose(found.numpy()[n, row, :length], expected, rtol=1e-10)
            np.testing.assert_array_equal(found.numpy()[n, row, length:], 0)
            np.testing.assert_allclose(context.numpy()[n, row], expected @ keys[n, :length], rtol=1e-9, atol=1e-12)
    (context * context).sum().backward()
    assert leaf.grad is not None
    assert asked.grad is not None
    np.testing.assert_array_equal(leaf.grad.numpy()[~mask], 0)
    assert np.isfinite(leaf.grad.numpy()).all()
    assert np.isfinite(asked.grad.numpy()).all()
    again, _ = layer(asked, leaf, mask, projected=layer.project(leaf, mask))
    np.testing.assert_array_equal(again.numpy(), context.numpy())


def test_initialisers_have_their_moments() -> None:
    p = nn.Parameter(np.empty((60, 20, 5), np.float32))
    bound = math.sqrt(6 / (20 * 5 + 60 * 5))
    assert 0.99 * bound < abs(init.xavier_uniform_(p, rng=0).data).max() <= bound * 1.000001
    bound = math.sqrt(6 / (20 * 5))
    assert 0.99 * bound < abs(init.kaiming_uniform_(p, rng=0).data).max() <= bound * 1.000001
    values = init.normal_(p, mean=2, std=3, rng=0).data
    assert abs(values.mean() - 2) < 5 * 3 / math.sqrt(p.size)
    assert abs(values.std() / 3 - 1) < 5 / math.sqrt(2 * p.size)
    assert init.constant_(p, 4).data.min() == 4
    assert init.zeros_(p) is p
    assert not p.data.any()


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 9))
def test_orthogonal_rows_or_columns(rows: int, columns: int, seed: int) -> None:
    w = init.orthogonal_(nn.Parameter(np.empty((rows, columns))), gain=2.0, rng=seed).data
    product = w @ w.T if rows <= columns else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(min(rows, columns)), atol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: nn.Linear(4, 2)(Tensor(np.zeros((5, 3), "float32"))),
            ValueError,
            r"Linear: input has 3 features in its last axis, the layer was made for in_features=4 \(x: \(..., D\) = \(5, 3\)\)",
        ),
        (lambda: nn.Linear(4, 2)(np.zeros((5, 4), "float32")), TypeError, r"Linear: input must be a Tensor \(..., D\), got ndarray"),
        (lambda: nn.Embedding(4, 2)(np.array([1, 4])), IndexError, r"id 4 .*0\.\.3"),
        (lambda: nn.Embedding(4, 2)(np.array([1.0])), TypeError, "integers"),
        (lambda: nn.Embedding(4, 2, padding_idx=4), ValueError, "padding_idx=4 is outside num_embeddings=4"),
        (lambda: nn.Conv2d(3, 2, 3)(Tensor(np.zeros((1, 2, 5, 5), "float32"))), ValueError, r"C = in_channels = 3, got \(1, 2, 5, 5\)"),
        (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "must be divisible by groups=2"),
        (lambda: nn.LayerNorm(4)(Tensor(np.zeros((4, 3), "float32"))), ValueError, r"normalized_shape=\(4,\), got \(4, 3\)"),
        (lambda: nn.GroupNorm(2, 4)(Tensor(np.zeros((4, 3), "float32"))), ValueError, r"C = num_channels = 4, got \(4, 3\)"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "num_channels=4 must be divisible by num_groups=3"),
        (lambda: nn.Dropout(1.0), ValueError, r"p is a probability in \[0, 1\), got 1.0"),
        (lambda: nn.Attention("dot", 3, 4), ValueError, '"dot" needs query_size = key_size, got 3 and 4'),
        (lambda: nn.Attention("cosine", 3, 3), ValueError, "kind must be one of dot, general, additive, got 'cosine'"),  # type: ignore[arg-type]
        (
            lambda: nn.Attention("dot", 3, 3)(Tensor(np.zeros((2, 1, 3))), Tensor(np.zeros((2, 4, 3))), np.ones((2, 5), bool)),
            ValueError,
            r"mask must be booleans \(N, T\) = \(2, 4\), got bool \(2, 5\)",
        ),
        (lambda: init.xavier_uniform_(nn.Parameter(np.zeros(3))), ValueError, r"needs at least two axes .* got \(3,\)"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
