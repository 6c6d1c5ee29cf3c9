"""AutoregressiveLSTM: probabilities that sum to one, one frame at a time, and better than frames without a past."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn.errors import MinirnnError
from minirnn.models import AutoregressiveConfig, AutoregressiveLSTM
from minirnn.optim import Adam
from minirnn.study import gradcheck


def small(**changes: Any) -> AutoregressiveLSTM:
    return AutoregressiveLSTM(AutoregressiveConfig(**{"observed": 2, "hidden": 4, **changes}), rng=1).to("float64")


def test_the_probabilities_of_all_binary_series_sum_to_one() -> None:
    every = [np.array(bits, float).reshape(3, 2) for bits in itertools.product((0, 1), repeat=6)]
    assert np.exp(small(observation="binary").log_likelihood(every)).sum() == pytest.approx(1, rel=1e-12)


@settings(max_examples=5)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), layers=st.integers(1, 2))
def test_the_gradient_of_the_loss_is_its_derivative(sizes: list[int], layers: int) -> None:
    model = small(layers=layers, missing=True)
    batch = [np.random.default_rng(n).standard_normal((n, 2)) for n in sizes]
    batch[0][-1, 0] = np.nan
    gradcheck(lambda *_: model.loss(batch), list(model.parameters()), directions=2, elementwise=0)


def test_the_loss_is_the_likelihood_per_frame_and_nothing_sees_its_own_frame() -> None:
    model, rng = small(), np.random.default_rng(0)
    batch = [rng.standard_normal((n, 2)) for n in (4, 1, 3)]
    total = model.log_likelihood(batch)
    assert model.loss(batch).item() == pytest.approx(-total.sum() / 8, rel=1e-12)
    before = model.filter(batch[0]).observation
    batch[0][2:] += 5
    after = model.filter(batch[0]).observation
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3] != after[3]).all()


def test_a_forecast_goes_on_from_the_last_frame() -> None:
    model = small()
    x = np.random.default_rng(0).standard_normal((5, 2))
    ahead = model.forecast(x, 1, 20000, 0)
    expected = model.filter(np.concatenate([x, [[0, 0]]])).observation[5]
    spread = ahead[:, 0].std(0) / np.sqrt(len(ahead))
    assert (np.abs(ahead[:, 0].mean(0) - expected) < 4 * spread).all()
    assert model.forecast(x[:1], 3, 2, 0).shape == (2, 3, 2)


def test_it_learns_what_depends_on_the_past() -> None:
    """A bit that keeps its value with probability 0.9: 0.69 nats per frame without the past, and 0.33 with it."""

    def draw(rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
        flips = rng.random((32, 20, 1)) < np.where(np.arange(20) == 0, 0.5, 0.1)[:, None]
        return list((np.cumsum(flips, 1) % 2).astype(float))

    rng = np.random.default_rng(0)
    model = AutoregressiveLSTM(AutoregressiveConfig(observed=1, observation="binary", hidden=8), rng=0)
    model.start_from(draw(rng))
    optimizer = Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        loss = model.loss(draw(rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nats = -model.log_likelihood(draw(rng)) / 20  # (32,)
    assert nats.mean() + 5 * nats.std() / np.sqrt(len(nats)) < np.log(2)
    assert nats.mean() > 0.28


def test_drawing_is_reproducible_and_fills_gaps() -> None:
    model = small(observation="binary", missing=True)
    x = np.array([[0, 1], [1, np.nan], [np.nan, np.nan], [1, 1]], float)
    filled = model.impute(x, 5, 3)
    np.testing.assert_array_equal(filled, model.impute(x, 5, 3))
    np.testing.assert_array_equal(filled[:, ~np.isnan(x)], np.broadcast_to(x[~np.isnan(x)], (5, 5)))
    assert set(np.unique(filled)) <= {0, 1}
    np.testing.assert_array_equal(model.sample(4, 3, 1), model.sample(4, 3, 1))
    assert model.sample(4, 3, 1).shape == (3, 4, 2)


def test_bad_input_says_why() -> None:
    with pytest.raises(MinirnnError, match="series 0 has 3 columns, the model was made for 2"):
        small().loss([np.zeros((2, 3))])
    with pytest.raises(MinirnnError, match="missing observation"):
        small().log_likelihood([np.full((2, 2), np.nan)])
    with pytest.raises(MinirnnError, match="without missing=True"):
        small().impute(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        small(hidden=0)
