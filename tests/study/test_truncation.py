"""Truncated back-propagation through time: cut layers against a loop over chunks, and the bias of the gradient against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn as mr
from minirnn import Tensor, nn, ops
from minirnn.kernels.availability import missing
from minirnn.models import AutoregressiveConfig, AutoregressiveLSTM, NeuralSSM, NeuralSSMConfig, Seq2Seq, Seq2SeqConfig
from minirnn.nn.packing import pack
from minirnn.study import gradcheck, truncated, truncation

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}
KERNELS = ["numpy", "numba", "unrolled"]
lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def states(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def given_states(layer: Any, N: int) -> tuple[Tensor, ...]:
    """First states (1, N, H), one for each of the layer's."""
    return tuple(Tensor(normal(1, N, layer.hidden_size, seed=7 + k), requires_grad=True) for k in range(len(layer.state_names)))


def packed_state(first: tuple[Tensor, ...]) -> Any:
    return first if len(first) > 1 else first[0]


def chunked(layer: Any, x: Tensor, first: tuple[Tensor, ...], lengths: list[int], k: int) -> list[Tensor]:
    """Truncation as everybody writes it: chunk after chunk, each from the detached state of the one before. Outputs, and last states.

    The sequences are sorted, longest first.
    """
    outputs, lasts, state = [], [[] for _ in first], first
    for begin in range(0, max(lengths), k):
        own = [min(n - begin, k) for n in lengths if n > begin]
        x_k = x[begin : begin + max(own), : len(own)]
        output, last = layer(x_k, packed_state(tuple(s[:, : len(own)] for s in state)), lengths=own)
        outputs.append(pack(output, own).rows)
        for kept, s in zip(lasts, states(last), strict=True):
            going = sum(n > begin + k for n in lengths)
            kept.append(s[:, going:])
        state = tuple(s.detach() for s in states(last))
    return [ops.concatenate(outputs), *(ops.concatenate(kept[::-1], axis=1) for kept in lasts)]


def gradients(outputs: list[Tensor], leaves: list[Tensor]) -> list[Any]:
    loss = sum((y * Tensor(normal(*y.shape, seed=20 + j).astype(y.dtype))).sum() for j, y in enumerate(outputs))
    return [g.numpy() for g in mr.grad(loss, leaves)]


@settings(max_examples=60)
@given(st.sampled_from(list(LAYERS)), st.sampled_from(KERNELS), lengths_of, st.integers(1, 10), st.sampled_from([1, 3, 5]), st.booleans())
def test_a_cut_layer_is_a_loop_over_detached_chunks(cell: str, kernel: str, lengths: list[int], k: int, H: int, again: bool) -> None:
    lengths = sorted(lengths, reverse=True)
    options: dict[str, Any] = {"recompute": 0.6} if again and cell != "rnn" else {}
    layer = LAYERS[cell](2, H, kernel=kernel, rng=0, **options).to("float64")
    N, x = len(lengths), Tensor(normal(max(lengths), len(lengths), 2), requires_grad=True)
    first = given_states(layer, N)
    leaves = [x, *first, *layer.parameters()]
    with truncated(k):
        output, last = layer(x, packed_state(first), lengths=lengths)
    found = [pack(output, lengths).rows, *states(last)]
    expected = chunked(layer, x, first, lengths, k)
    for y, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(y.numpy(), want.numpy(), rtol=1e-12, atol=1e-14)
    for g, want in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", LAYERS)
def test_a_cut_where_nothing_is_left_to_cut_changes_no_bit(cell: str, kernel: str) -> None:
    layer = LAYERS[cell](2, 3, kernel=kernel, rng=0)
    x = mr.tensor(normal(5, 2, 2), dtype="float32", requires_grad=True)
    whole = gradients([layer(x)[0]], [x, *layer.parameters()])
    for k in (5, 6, 10**9):
        with truncated(k):
            output = layer(x)[0]
        assert all(np.array_equal(a, b) for a, b in zip(gradients([output], [x, *layer.parameters()]), whole, strict=True))


def test_the_reverse_direction_counts_from_each_sequences_end() -> None:
    layer = nn.LSTM(2, 3, bidirectional=True, rng=0).to("float64")
    x = Tensor(normal(7, 2, 2), requires_grad=True)
    with truncated(2):
        output, _ = layer(x, lengths=[7, 4])
    (dx,) = mr.grad(output[0, :, 3:].sum(), [x])  # what the reverse direction says at step 0
    there = np.abs(dx.numpy()).sum(2) > 0  # (T, N)
    assert there[:, 0].nonzero()[0].tolist() == [0]  # its steps are 6 5 | 4 3 | 2 1 | 0
    assert there[:, 1].nonzero()[0].tolist() == [0, 1]  # and 3 2 | 1 0


@pytest.mark.parametrize("cell", LAYERS)
def test_second_derivatives_are_cut_too(cell: str) -> None:
    """d/dx <truncated gradient, v>: of the fused layer, and of the one that is unrolled and detaches its states."""

    def second(kernel: str) -> Any:
        layer = LAYERS[cell](2, 3, kernel=kernel, rng=0).to("float64")
        x = Tensor(normal(6, 2, 2), requires_grad=True)
        with truncated(2):
            y = layer(x)[0]
        (g,) = mr.grad((y * y).sum(), [x], create_graph=True)
        return mr.grad((g * Tensor(normal(6, 2, 2, seed=1))).sum(), [x])[0].numpy()

    np.testing.assert_allclose(second("numpy"), second("unrolled"), rtol=1e-10, atol=1e-12)


def autoregressive(**options: Any) -> tuple[Any, Any]:
    model = AutoregressiveLSTM(AutoregressiveConfig(observed=2, hidden=6, **options), rng=0).to("float64")
    return model, [normal(12, 2), normal(9, 2, seed=1)]


def test_truncation_is_what_it_says() -> None:
    """Cosine and ratio from their definition, overall and for each parameter."""
    model, batch = autoregressive()
    names = [name for name, _ in model.named_parameters()]
    found = truncation(model, batch, [1, 4])
    assert found.T == 12
    assert found.ks == (1, 4)
    assert list(found.parameters) == names
    whole = [g.numpy().ravel() for g in mr.grad(model.loss(batch), list(model.parameters()))]
    for j, k in enumerate(found.ks):
        with truncated(k):
            cut = [g.numpy().ravel() for g in mr.grad(model.loss(batch), list(model.parameters()))]
        for a, b, bias in [
            *zip(cut, whole, (found.parameters[name] for name in names), strict=True),
            (np.concatenate(cut), np.concatenate(whole), found.overall),
        ]:
            assert bias.ratio[j] == pytest.approx(np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
            assert bias.cosine[j] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert found.cosine[0] < found.cosine[1] < 1
    assert "all parameters" in str(found)
    assert "lstm.weight_hh_l0" in str(found)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_nothing_cut_is_exactly_one_and_the_model_stays_as_it_was(dropout: float) -> None:
    """With dropout too: every k sees the same draws."""
    model, batch = autoregressive(dropout=dropout)
    before = model.rng_state()
    found = truncation(model, batch, [12, 100])
    assert found.cosine.tolist() == [1.0, 1.0]
    assert found.ratio.tolist() == [1.0, 1.0]
    for bias in found.parameters.values():
        assert bias.cosine.tolist() == bias.ratio.tolist() == [1.0, 1.0]
    assert model.rng_state() == before
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_several_layers() -> None:
    model = Seq2Seq(Seq2SeqConfig(source_size=9, target_size=9, embedding=4, encoder_hidden=3, decoder_hidden=5, layers=2), rng=0)
    batch = mr.data.TranslationBatch([np.arange(3, 9), np.arange(3, 6)], [np.arange(3, 8), np.arange(4, 9)])
    found = truncation(model, batch, [1, 3, 6])
    assert found.T == 6
    assert found.cosine[2] == found.ratio[2] == 1
    assert found.parameters["output.weight"].cosine[0] == 1  # the output layer comes after all recurrence


def test_the_gradient_of_a_cut_layer_is_no_gradient() -> None:
    """What is checked against finite differences fails: the truncated gradient is biased, and the checker sees it."""
    layer = nn.LSTM(2, 3, rng=0).to("float64")

    def run(x: Tensor) -> Tensor:
        with truncated(2):
            return layer(x)[0]

    assert not gradcheck(run, Tensor(normal(5, 1, 2), requires_grad=True), raise_error=False)


def test_what_cannot_be_cut_is_refused() -> None:
    x = [normal(6, 2)]
    ssm = NeuralSSM(NeuralSSMConfig(observed=2, latent=2, hidden=4, encoder_hidden=4, combiner=3, posterior="smoothing"), rng=0)
    with pytest.raises(ValueError, match=r"NeuralSSM has a recurrence, Gain, that mr\.study\.truncated does not cut"):
        truncation(ssm, x, [2])
    linear = nn.Linear(2, 2, rng=0)
    with pytest.raises(ValueError, match="nothing to cut in Linear: no recurrent layer reads more than one step"):
        truncation(linear, Tensor(normal(3, 2).astype("f")), [2], loss=lambda batch: linear(batch).sum())
    with pytest.raises(TypeError, match="Linear has no method loss"):
        truncation(linear, x, [2])
    with pytest.raises(ValueError, match="at least one k"):
        truncation(autoregressive()[0], x, [])
    with pytest.raises(TypeError, match=r"ks must be numbers of steps, as \(1, 2, 4\), got 2"):
        truncation(autoregressive()[0], x, 2)
    for k in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="k must be a number of steps, at least 1"), truncated(k):
            pass


@pytest.mark.parametrize("cell", LAYERS)
def test_a_trace_sees_the_cut(cell: str) -> None:
    """dL/dh_t of a step before a cut is that of its own chunk alone."""
    layer = LAYERS[cell](2, 3, kernel="numpy", rng=0).to("float64")
    x, k = normal(7, 2, 2), 3

    def traced(x: Any, state: Any = None) -> tuple[Any, Any]:
        with mr.study.trace() as t, truncated(k):
            output, last = layer(Tensor(x), state)
            (output * output).sum().backward()
        return t["l0"].dh, tuple(s.detach() for s in states(last))

    whole, state, parts = traced(x)[0], None, []
    for begin in range(0, 7, k):
        dh, after = traced(x[begin : begin + k], state)
        state = packed_state(after)
        parts.append(dh)
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-12)


@pytest.mark.skipif(missing("emulated") is not None, reason=f"the emulated device: {missing('emulated')}")
@pytest.mark.parametrize("cell", LAYERS)
def test_layers_on_a_device_are_cut_too(cell: str) -> None:
    def found(device: str) -> list[Any]:
        layer = LAYERS[cell](2, 3, rng=0).to(device)
        x = mr.tensor(normal(5, 2, 2), dtype="float32").to(device).requires_grad_()
        with truncated(2):
            output = layer(x)[0]
        return [g.numpy() for g in mr.grad((output * output).sum(), [x, *layer.parameters()])]

    for a, b in zip(found("emulated"), found("cpu"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
