"""Recurrent layers over ragged batches: what a sequence gives must not depend on its company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, nn, no_grad
from minirnn.study import gradcheck

LAYERS = [nn.LSTM, nn.GRU, nn.RNN]
KERNELS = ["numpy", "numba", "unrolled"]
layers = st.sampled_from(LAYERS)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.booleans())  # D, H, K, bidirectional
batches = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def make(kind: Any, shape: tuple[int, int, int, bool], **options: Any) -> Any:
    D, H, K, both = shape
    return kind(D, H, num_layers=K, bidirectional=both, rng=0, **options).to("float64")


def states_of(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def draw(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape)


@given(layers, shapes, batches, st.sampled_from(KERNELS))
def test_a_sequence_in_a_batch_is_the_sequence_alone(kind: Any, shape: Any, lengths: list[int], kernel: str) -> None:
    layer = make(kind, shape, kernel=kernel)
    T, N = max(lengths) + 1, len(lengths)
    x = draw(T, N, layer.input_size)
    x[~nn.Packing(lengths).mask(T).T] = np.nan  # what lies beyond the end is never read
    state = draw(2, shape[2] * (1 + shape[3]), N, layer.hidden_size)
    first = [Tensor(s) for s in state[: len(layer.state_names)]]
    with no_grad():
        output, last = layer(Tensor(x), tuple(first) if len(first) > 1 else first[0], lengths=lengths)
        for n, length in enumerate(lengths):
            own = [Tensor(s.data[:, n]) for s in first]
            alone, end = layer(Tensor(x[:length, n]), tuple(own) if len(own) > 1 else own[0])
            np.testing.assert_allclose(output.numpy()[:length, n], alone.numpy(), rtol=1e-12, atol=1e-14)
            assert not output.numpy()[length:, n].any()
            for batched, single in zip(states_of(last), states_of(end), strict=True):
                np.testing.assert_allclose(batched.numpy()[:, n], single.numpy(), rtol=1e-12, atol=1e-14)


@given(layers, shapes, batches, st.randoms(use_true_random=False))
def test_the_order_of_the_sequences_changes_nothing(kind: Any, shape: Any, lengths: list[int], random: Any) -> None:
    layer = make(kind, shape)
    x = draw(max(lengths), len(lengths), layer.input_size)
    shuffled = list(range(len(lengths)))
    random.shuffle(shuffled)
    results = []
    for order in (list(range(len(lengths))), shuffled):
        leaf = Tensor(x[:, order], requires_grad=True)
        output, last = layer(leaf, lengths=np.array(lengths)[order])
        ((output * output).sum() + sum((s * s * s).sum() for s in states_of(last))).backward()
        back = np.argsort(order)
        assert leaf.grad is not None
        results.append([output.numpy()[:, back], leaf.grad.numpy()[:, back], *(s.numpy()[:, back] for s in states_of(last))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", LAYERS)
def test_nan_in_one_sequence_stays_there(kind: Any, kernel: str) -> None:
    layer = make(kind, (3, 4, 2, True), kernel=kernel)
    lengths = [5, 2, 4]
    x = draw(5, 3, 3)
    x[1, 2] = np.nan
    leaf = Tensor(x, requires_grad=True)
    output, last = layer(leaf, lengths=lengths)
    healthy, ill = [0, 1], 2
    assert np.isfinite(output.numpy()[:, healthy]).all()
    assert np.isnan(output.numpy()[:4, ill]).all()
    assert all(np.isfinite(s.numpy()[:, healthy]).all() for s in states_of(last))
    output.sum().backward()
    assert leaf.grad is not None
    assert np.isfinite(leaf.grad.numpy()[:, healthy]).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_packed_batch_first_and_dense_input_agree(kind: Any) -> None:
    layer = make(kind, (3, 4, 2, True))
    lengths = [2, 5, 1]
    x = draw(5, 3, 3)
    dense, last = layer(Tensor(x), lengths=lengths)
    packed, packed_last = layer(nn.pack(Tensor(x), lengths))
    assert isinstance(packed, nn.Packed)
    np.testing.assert_array_equal(packed.unpack().numpy(), dense.numpy())
    layer.batch_first = True
    first, first_last = layer(Tensor(x.swapaxes(0, 1)), lengths=lengths)
    np.testing.assert_array_equal(first.numpy().swapaxes(0, 1), dense.numpy())
    for a, b, c in zip(*map(states_of, (last, packed_last, first_last)), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(a.numpy(), c.numpy())


@pytest.mark.parametrize("kind", LAYERS)
def test_the_last_state_is_the_output_at_each_sequences_end(kind: Any) -> None:
    layer = make(kind, (3, 4, 1, True))
    lengths = [2, 5, 1]
    output, last = layer(Tensor(draw(5, 3, 3)), lengths=lengths)
    h = states_of(last)[0].numpy()
    for n, length in enumerate(lengths):
        np.testing.assert_array_equal(output.numpy()[length - 1, n, :4], h[0, n])
        np.testing.assert_array_equal(output.numpy()[0, n, 4:], h[1, n])


@pytest.mark.parametrize(("kind", "cell"), [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell), (nn.RNN, nn.RNNCell)])
def test_a_cell_step_by_step_is_the_layer(kind: Any, cell: Any) -> None:
    layer, step = make(kind, (3, 4, 1, False)), cell(3, 4).to("float64")
    step.load_state_dict({name.removesuffix("_l0"): a for name, a in layer.state_dict().items()})
    x = draw(5, 2, 3)
    output, _ = layer(Tensor(x))
    state = None
    for t in range(5):
        state = step(Tensor(x[t]), state)
        np.testing.assert_allclose(states_of(state)[0].numpy(), output.numpy()[t], rtol=1e-12, atol=1e-14)
    alone = step(Tensor(x[0, 1]))
    np.testing.assert_allclose(states_of(alone)[0].numpy(), output.numpy()[0, 1], rtol=1e-12, atol=1e-14)


def test_dropout_falls_between_the_layers_only() -> None:
    x = Tensor(draw(4, 3, 3).astype("float32"))
    for layers, differs in ((1, False), (2, True)):
        layer = nn.LSTM(3, 5, num_layers=layers, dropout=0.5, rng=0)
        trained, _ = layer(x)
        tested, _ = layer.eval()(x)
        assert (not np.array_equal(trained.numpy(), tested.numpy())) == differs
    same = nn.LSTM(3, 5, num_layers=2, rng=0)
    np.testing.assert_array_equal(same(x)[0].numpy(), tested.numpy())


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_derivatives(kind: Any) -> None:
    layer = make(kind, (2, 3, 2, True))
    names = [name for name, _ in layer.named_parameters()]
    first = [Tensor(draw(4, 2, 3), requires_grad=True) for _ in layer.state_names]

    def f(x: Tensor, *rest: Tensor) -> list[Tensor]:
        states, weights = rest[: len(first)], rest[len(first) :]
        for name, weight in zip(names, weights, strict=True):
            setattr(layer, name, weight)
        output, last = layer(x, states if len(states) > 1 else states[0], lengths=[2, 4])
        return [output, *states_of(last)]

    assert gradcheck(f, [Tensor(draw(4, 2, 2), requires_grad=True), *first, *layer.parameters()], elementwise=0)


def test_errors_say_what_was_expected_and_what_came() -> None:
    lstm, x = nn.LSTM(4, 5, num_layers=2), Tensor(np.zeros((7, 2, 4), "float32"))
    with pytest.raises(ValueError, match="LSTM: input has") as error:
        lstm(Tensor(np.zeros((7, 2, 3), "float32")))
    expected = "LSTM: input has 3 features in its last axis, the layer was made for input_size=4 (x: (T, N, D) = (7, 2, 3))"
    assert str(error.value) == expected
    h, c = Tensor(np.zeros((2, 2, 5), "float32")), Tensor(np.zeros((1, 2, 5), "float32"))
    with pytest.raises(ValueError, match=r"^LSTM: c_0 must be \(K\*directions, N, H\) = \(2, 2, 5\), got \(1, 2, 5\)$"):
        lstm(x, (h, c))
    with pytest.raises(ValueError, match=r"^LSTM: the state is \(h_0, c_0\), got 1 of them"):
        lstm(x, h)
    with pytest.raises(TypeError, match=r"^LSTM: c_0 must be a Tensor \(K\*directions, N, H\), got ndarray"):
        lstm(x, (h, h.numpy()))
    with pytest.raises(TypeError, match=r"^LSTM: input must be a Tensor \(T, N, D\), got ndarray; minirnn.tensor\(x\) makes one"):
        lstm(x.numpy())
    with pytest.raises(ValueError, match=r"^LSTM: a Packed knows its lengths"):
        lstm(nn.pack(x, [7, 2]), lengths=[7, 2])
    with pytest.raises(ValueError, match=r"sequence 0 has length 0"):
        lstm(x, lengths=[0, 7])
    for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        with pytest.raises(ValueError, match=rf"^{cell.__name__}: hidden_size must be at least 1, got 0"):
            cell(3, 0)
        with pytest.raises(ValueError, match=rf"^{cell.__name__}: input_size must be at least 1, got 0"):
            cell(0, 3)
    with pytest.raises(ValueError, match=r"^GRU: hidden_size must be at least 1, got 0"):
        nn.GRU(4, 0)
    with pytest.raises(ValueError, match=r'^RNN: nonlinearity must be "tanh" or "relu", got \'gelu\''):
        nn.RNN(4, 5, nonlinearity="gelu")
    with pytest.raises(TypeError, match=r"float64.*float32.*\.to\(dtype\)"):
        lstm(Tensor(np.zeros((7, 2, 4))))
    with pytest.raises(ValueError, match="nonesuch"):
        nn.LSTM(4, 5, kernel="nonesuch")(x)
