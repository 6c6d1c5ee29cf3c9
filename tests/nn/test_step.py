"""One step without a tape: the numbers of a recorded step, and none of its cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, detect_anomaly, nn, no_grad, ops
from minirnn.diagnostics import AnomalyError, profile
from minirnn.nn.recurrent import Recurrence

CELLS = [nn.LSTMCell, nn.GRUCell, nn.RNNCell]
LAYERS = [nn.LSTM, nn.GRU, nn.RNN]
KERNELS = [None, "numpy", "numba", "unrolled"]


def draw(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def tuple_of(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def one_or_pair(states: list[Tensor]) -> Any:
    return tuple(states) if len(states) > 1 else states[0]


@pytest.mark.parametrize("kernel", KERNELS)
@given(
    st.sampled_from(CELLS),
    st.integers(1, 6),
    st.sampled_from([1, 3, 16, 33]),
    st.sampled_from([1, 7, 20]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["float32", "float64"]),
)
def test_a_cell_gives_what_it_gives_on_the_tape(
    kernel: str | None, cell: Any, N: int, H: int, D: int, bias: bool, stateful: bool, dtype: str
) -> None:
    step = cell(D, H, bias, kernel=kernel, rng=0).to(dtype)
    x = Tensor(draw(N, D).astype(dtype))
    state = one_or_pair([Tensor(draw(N, H, seed=k).astype(dtype)) for k in range(len(step.state_names))]) if stateful else None
    recorded = tuple_of(step(x, state))
    with no_grad():
        stepped = tuple_of(step(x, state))
    tolerance = 4 * (D + H) * np.finfo(dtype).eps  # sums of D + H terms, in two orders
    for a, b in zip(stepped, recorded, strict=True):
        assert (a.shape, a.dtype, a.requires_grad) == (b.shape, b.dtype, False)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=tolerance * max(1, np.abs(b.numpy()).max()))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_step_by_step_is_the_layer(kind: Any, batch_first: bool, layers: int, kernel: str | None) -> None:
    layer = kind(3, 5, layers, batch_first=batch_first, kernel=kernel, rng=0).to("float64")
    x = draw(2, 6, 3) if batch_first else draw(6, 2, 3)
    whole, last = layer(Tensor(x))
    state: Any = None
    with no_grad():
        for t in range(6):
            x_t = x[:, t : t + 1] if batch_first else x[t : t + 1]
            output, state = layer(Tensor(x_t), state)
            expected = whole.numpy()[:, t : t + 1] if batch_first else whole.numpy()[t : t + 1]
            np.testing.assert_allclose(output.numpy(), expected, rtol=1e-11, atol=1e-13)
    for a, b in zip(tuple_of(state), tuple_of(last), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-11, atol=1e-13)


def test_states_given_are_not_overwritten_and_those_returned_are_new() -> None:
    cell, x = nn.LSTMCell(3, 4, rng=0), Tensor(draw(2, 3).astype("f"))
    with no_grad():
        first = cell(x)
        kept = [s.numpy().copy() for s in first]
        second = cell(x, first)
    for before, after, copy in zip(first, second, kept, strict=True):
        np.testing.assert_array_equal(before.numpy(), copy)
        assert not np.shares_memory(before.numpy(), after.numpy())


def test_the_step_is_taken_where_nothing_is_recorded_or_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    step = Recurrence.step

    def spy(self: Any, *arguments: Any) -> Any:
        result = step(self, *arguments)
        taken.append(result is not None)
        return result

    monkeypatch.setattr(Recurrence, "step", spy)
    cell, lstm, x = nn.LSTMCell(3, 4, rng=0), nn.LSTM(3, 4, 2, dropout=0.5, rng=0), Tensor(draw(2, 3).astype("f"))
    cell(x)
    assert taken == []
    with no_grad():
        cell(x)
        assert taken == [True]
        with profile() as cost:
            cell(x)
        assert taken == [True, False]
        assert "LSTMLayer" in {row.operation for row in cost.rows()}
        cell(Tensor(draw(20000, 3).astype("f")))
        assert taken.pop() is False
        lstm(Tensor(x.data[None]))
        assert len(taken) == 2  # dropout falls between the layers in training
        lstm.eval()(Tensor(x.data[None]))
        assert taken[2:] == [True, True]


def test_anomalies_and_errors_are_found_in_a_step_too() -> None:
    cell = nn.LSTMCell(3, 4, rng=0)
    with no_grad():
        with (
            detect_anomaly(),
            pytest.raises(AnomalyError, match="LSTMLayer forward in LSTMCell: first NaN or Inf in gate i at time step 0, sequence 0"),
        ):
            cell(Tensor(np.full((2, 3), np.nan, "f")))
        with pytest.raises(TypeError, match=r"float64.*float32.*\.to\(dtype\)"):
            cell(Tensor(draw(2, 3)))
        with pytest.raises(ValueError, match=r"^LSTMCell: h_0 must be \(N, H\) = \(2, 4\), got \(1, 4\)"):
            cell(Tensor(draw(2, 3).astype("f")), (Tensor(np.zeros((1, 4), "f")), Tensor(np.zeros((2, 4), "f"))))


def test_a_nan_stays_in_its_sequence() -> None:
    x = draw(3, 3).astype("f")
    x[1, 2] = np.nan
    for kind in CELLS:
        with no_grad():
            for s in tuple_of(kind(3, 4, rng=0)(Tensor(x))):
                assert np.isfinite(s.numpy()[[0, 2]]).all()


def test_the_operation_says_where_it_does_not_serve() -> None:
    x, h = draw(2, 3), draw(2, 4)
    w = [Tensor(draw(4, 3)), Tensor(draw(4, 4)), None, None]
    assert ops.recurrent_step("rnn", x, w, [h], nonlinearity="tanh") is None
    with no_grad():
        (stepped,) = ops.recurrent_step("rnn", x, w, [h], nonlinearity="tanh")
        assert ops.recurrent_step("rnn", x.astype("f"), w, [h], nonlinearity="tanh") is None
        assert ops.recurrent_step("rnn", x, w, [h], kernel="unrolled", nonlinearity="tanh") is None
    np.testing.assert_allclose(stepped, np.tanh(x @ w[0].data.T + h @ w[1].data.T), rtol=1e-12)
