"""Layers whose gates are computed again in the backward pass: the same gradients, in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minirnn import Tensor, checkpoint, grad, nn
from minirnn.ops import pieces
from minirnn.study import gradcheck, gradgradcheck

KINDS = [nn.LSTM, nn.GRU]
same_for_all = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the patch is the same for every example


def draw(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def states_of(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def results(layer: Any, x: Any, state: list[Any], lengths: list[int] | None) -> list[Any]:
    """Outputs, last states, and the gradients of everything."""
    leaf, first = Tensor(x, requires_grad=True), [Tensor(s, requires_grad=True) for s in state]
    layer.zero_grad()
    output, last = layer(leaf, tuple(first) if len(first) > 1 else first[0], lengths=lengths)
    ((output * output).sum() + sum((s * s * s).sum() for s in states_of(last))).backward()
    gradients = [t.grad.numpy() for t in (leaf, *first, *layer.parameters())]
    return [output.numpy(), *(s.numpy() for s in states_of(last)), *gradients]


@same_for_all
@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sampled_from([1, 2, 5]),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.3, 0.5, True]),
    st.sampled_from(["numpy", "numba"]),
    st.sampled_from([1, 4, 1024]),
    st.booleans(),
)
def test_gates_computed_again_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    lengths: list[int],
    H: int,
    layers: int,
    both: bool,
    bias: bool,
    share: float,
    kernel: str,
    rows: int,
    ragged: bool,
) -> None:
    """a = x w_ih^T + b + h_{t-1} w_hh^T is summed in another order: gradients differ by some eps times the terms of their sums."""
    monkeypatch.setattr(pieces, "ROWS", rows)
    T, N, D = max(lengths), len(lengths), 3
    found = []
    for recompute in (False, share):
        layer = kind(D, H, layers, bias, bidirectional=both, kernel=kernel, recompute=recompute, rng=0).to("float64")
        state = [draw(layers * (1 + both), N, H, seed=5 + k) for k in range(len(layer.state_names))]
        found.append(results(layer, draw(T, N, D), state, lengths if ragged else None))
    for stored, again in zip(*found, strict=True):
        np.testing.assert_allclose(again, stored, rtol=1e-12, atol=1e-13 * max(1, np.abs(stored).max(initial=0)))


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_differs_by_rounding(kind: Any) -> None:
    """60 steps in float32: 1e-7 for each of a hundred dependent operations, relative to the largest number of each gradient."""
    found = []
    for recompute in (False, True):
        layer = kind(20, 30, recompute=recompute, rng=0)
        state = [draw(1, 8, 30, seed=k).astype("f") for k in range(len(layer.state_names))]
        found.append(results(layer, draw(60, 8, 20).astype("f"), state, None))
    for stored, again in zip(*found, strict=True):
        np.testing.assert_allclose(again, stored, rtol=0, atol=1e-5 * max(1, np.abs(stored).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_to_second_order(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 2)
    layer = kind(2, 3, recompute=True, rng=0).to("float64")

    def f(x: Tensor) -> Any:
        output, last = layer(x, lengths=[2, 5, 3])
        return [output, *states_of(last)]

    x = Tensor(draw(5, 3, 2), requires_grad=True)
    assert gradcheck(f, [x])
    assert gradgradcheck(f, [x])


@pytest.mark.parametrize("kind", KINDS)
def test_it_composes_with_checkpoint_and_dropout(kind: Any) -> None:
    x, found = draw(6, 2, 3), []
    for recompute in (False, True):
        layer = kind(3, 4, 2, dropout=0.5, recompute=recompute, rng=0).to("float64")
        leaf = Tensor(x, requires_grad=True)
        output = checkpoint(lambda x, layer=layer: layer(x)[0], leaf, generators=layer.generators()) if recompute else layer(leaf)[0]
        output.sum().backward()
        found.append([output.numpy(), leaf.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())])
    for stored, again in zip(*found, strict=True):
        np.testing.assert_allclose(again, stored, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_and_inputs_have_no_gradient(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 2)
    for recompute in (0.0, 0.5, 1.0):
        layer = kind(3, 4, recompute=recompute, rng=0).to("float64")
        leaf = Tensor(draw(5, 2, 3), requires_grad=True)
        for p in layer.requires_grad_(False).parameters():
            assert not p.requires_grad
        layer(leaf)[0].sum().backward()
        assert leaf.grad is not None
        assert all(p.grad is None for p in layer.parameters())
        layer.weight_hh_l0.requires_grad_(True)
        (dw,) = grad(layer(leaf.detach())[0].sum(), layer.weight_hh_l0)
        assert dw.shape == layer.weight_hh_l0.shape


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^LSTM: recompute must be True, False or a share of the steps, 0 to 1, got 1.5$"):
        nn.LSTM(3, 4, recompute=1.5)
    assert "recompute=0.5" in repr(nn.LSTM(3, 4, recompute=0.5))
