"""Bounds and particles of NeuralSSM and SRNN: derivatives, estimates that sum to one over all binary series, survivors, bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn import grad
from minirnn.errors import MinirnnError
from minirnn.models import SRNN, NeuralSSM, NeuralSSMConfig, SRNNConfig
from minirnn.models.particles import effective_size, normalised, resample
from minirnn.models.state_space import StateSpaceModel
from minirnn.study import gradcheck

SIZES: dict[str, Any] = {"observed": 2, "latent": 2, "hidden": 4, "encoder_hidden": 3, "combiner": 3, "emission_hidden": 3}
MODELS = ("filtering", "smoothing", "srnn")
lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def small(kind: str, **changes: Any) -> StateSpaceModel:
    sizes = {**SIZES, **changes}
    model = SRNN(SRNNConfig(**sizes), rng=1) if kind == "srnn" else NeuralSSM(NeuralSSMConfig(**sizes, posterior=kind), rng=1)  # type: ignore[arg-type]
    return model.to("float64")


def wide(kind: str, **changes: Any) -> StateSpaceModel:
    """With a posterior about as wide as the prior: the weights p / q of a narrow one have no variance, and means say nothing."""
    model: Any = small(kind, **changes)
    model.posterior.bias.data[2:] = -3 if kind == "smoothing" else 0.2  # ln((1 - k) / k), or ln sigma
    model.posterior.weight.data[2:] *= 0.1
    return model  # type: ignore[no-any-return]


def series(sizes: list[int], binary: bool = False, seed: int = 0, width: int = 2) -> list[np.ndarray[Any, Any]]:
    draws = [np.random.default_rng([seed, k]).standard_normal((n, width)) for k, n in enumerate(sizes)]
    return [(x > 0).astype(float) for x in draws] if binary else draws


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("objective", ["elbo", "iwae", "fivo"])
@settings(max_examples=3)
@given(sizes=lengths, binary=st.booleans())
def test_the_gradient_of_the_loss_is_its_derivative(kind: str, objective: str, sizes: list[int], binary: bool) -> None:
    model = small(kind, objective=objective, samples=3, observation="binary" if binary else "real", annealing=10)
    batch = series(sizes, binary)
    gradcheck(lambda *_: model.loss(batch, 4, rng=2), list(model.parameters()), directions=1, elementwise=0)


@pytest.mark.parametrize("kind", MODELS)
def test_gaps_take_no_part_in_the_gradient(kind: str) -> None:
    model, batch = small(kind, missing=True), series([4, 2, 5])
    batch[0][1, 0] = batch[2][3] = np.nan
    gradcheck(lambda *_: model.loss(batch, rng=2), list(model.parameters()), directions=2, elementwise=0)


@pytest.mark.parametrize("kind", MODELS)
@given(sizes=lengths)
def test_all_steps_at_once_give_what_one_after_the_other_gives(kind: str, sizes: list[int]) -> None:
    model = small(kind)
    evidence = model._evidence(model._frames(series(sizes)), 2)
    noise = np.random.default_rng(3).standard_normal((2 * sum(sizes), 2))
    parameters = list(model.parameters())
    gradients = []
    for path in (model._trajectory(evidence, noise), StateSpaceModel._trajectory(model, evidence, noise)):
        found = grad(path.posterior.kl(path.prior).sum() + path.z.sum(), parameters, allow_unused=True, retain_graph=True)
        gradients.append([path.z.data] + [g.data for g in found if g is not None])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)  # float64, sums of some hundred terms of order 1


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("bound", ["iwae", "fivo"])
def test_likelihood_estimates_of_all_binary_series_sum_to_one(kind: str, bound: Any) -> None:
    """Each e^bound is an unbiased estimate of a probability, and the probabilities of all 2^6 series of 3 frames sum to 1."""
    model = wide(kind, observation="binary")
    every = [np.array(bits, float).reshape(3, 2) for bits in itertools.product((0, 1), repeat=6)]
    repeats = 300
    estimates = np.exp(model.log_likelihood(every * repeats, samples=6, rng=0, bound=bound)).reshape(repeats, -1).sum(1)
    assert estimates.std() > 0
    assert abs(estimates.mean() - 1) < 4 * estimates.std() / np.sqrt(repeats)


@pytest.mark.parametrize("kind", MODELS)
def test_more_samples_bring_the_bound_closer(kind: str) -> None:
    model, batch = wide(kind), series([6] * 400, seed=1)
    elbo, few, many = (model.log_likelihood(batch, k, 0, b) for k, b in ((1, "elbo"), (4, "iwae"), (32, "iwae")))  # type: ignore[arg-type]
    for lower, higher in ((elbo, few), (few, many)):
        gain = higher - lower
        assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))


@pytest.mark.parametrize("kind", MODELS)
def test_the_terms_make_up_the_elbo(kind: str) -> None:
    model, batch = small(kind), series([3, 1, 4])
    reconstruction, kl = model.elbo_terms(batch, 5, 0)
    np.testing.assert_allclose(reconstruction - kl, model.log_likelihood(batch, 5, 0), rtol=1e-12)
    assert (kl >= 0).all()


@pytest.mark.parametrize("kind", MODELS)
def test_one_seed_gives_the_same_bits(kind: str) -> None:
    batch = series([4, 2], binary=True)
    runs = []
    for _ in range(2):
        model = small(kind, observation="binary", missing=True, dropout=0.3)
        losses = [model.loss(batch, k).item() for k in range(2)]
        drawn = [model.sample(3, 2, 5), model.forecast(batch[0], 3, 4, 5), model.filter(batch[0], 9, 5).latent]
        runs.append([np.array(losses), *drawn, model.log_likelihood(batch, 4, 5, "fivo")])
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)
    assert runs[0][0][0] != runs[0][0][1]


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_drawn_has_its_shape_and_keeps_what_was_seen(kind: str) -> None:
    model = small(kind, missing=True)
    x = series([5])[0]
    assert model.sample(4, 3, 0).shape == (3, 4, 2)
    assert model.forecast(x, 4, 3, 0).shape == (3, 4, 2)
    assert model.forecast(x[:1], 1, 2, 0).shape == (2, 1, 2)
    filtered = model.filter(x, 20, 0)
    assert (filtered.latent.shape, filtered.std.shape, filtered.observation.shape) == ((5, 2), (5, 2), (5, 2))
    x[2, 1] = np.nan
    filled = model.impute(x, 6, 0)
    np.testing.assert_array_equal(filled[:, ~np.isnan(x)], np.broadcast_to(x[~np.isnan(x)], (6, 9)))
    assert np.isfinite(filled).all()
    assert len(set(filled[:, 2, 1])) > 1


@pytest.mark.parametrize("kind", MODELS)
def test_temperature_zero_leaves_no_chance(kind: str) -> None:
    model = small(kind)
    np.testing.assert_array_equal(*model.sample(4, 2, 0, temperature=0.0))


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda w: sum(w) > 0.1),
    count=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_systematic_resampling_rounds_the_expected_counts(weights: list[float], count: int, seed: int) -> None:
    W = np.array([weights]) / sum(weights)
    chosen = resample(W, np.random.default_rng(seed), "systematic", count)
    counts = np.bincount(chosen[0], minlength=W.shape[1])
    assert counts.sum() == count
    assert (np.abs(counts - count * W[0]) < 1 + 1e-9).all()


@pytest.mark.parametrize("how", ["systematic", "multinomial"])
def test_survivors_are_as_many_as_their_weight_says(how: Any) -> None:
    W = np.array([[0.5, 0.0, 0.2, 0.3]])
    n = 5000
    counts = np.stack([np.bincount(row, minlength=4) for row in resample(W.repeat(n, 0), np.random.default_rng(0), how)])
    # of 4 draws, the standard error of a count is at most sqrt(4 / 4 / n)
    np.testing.assert_allclose(counts.mean(0), 4 * W[0], atol=4 * np.sqrt(1 / n))
    assert not counts[:, 1].any()


def test_the_effective_size_counts_particles() -> None:
    W = normalised(np.array([[0.0, 0.0, 0.0, 0.0], [5.0, -np.inf, -np.inf, -np.inf], [-np.inf] * 4, [2000.0, 2000.0, 0.0, -9.0]]))
    np.testing.assert_allclose(W.sum(1), 1)
    np.testing.assert_allclose(effective_size(W), [4, 1, 4, 2])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([], "the batch holds no series"),
        ([np.zeros((3, 2)), np.zeros((3, 4))], "series 1 has 4 columns, the model was made for 2"),
        ([np.zeros(3)], r"series 0 must be \(T, D\), frames by columns, with at least one frame; got \(3,\)"),
        ([np.zeros((0, 2))], "with at least one frame"),
        ([np.zeros((2, 2)), np.array([[0, 0], [0, np.nan]])], r"series 1 has a missing observation \(NaN\) in frame 1; .* missing=True"),
        ([np.array([[0, np.inf]])], "infinite"),
    ],
)
def test_series_that_cannot_be_used_say_why(batch: list[Any], words: str) -> None:
    with pytest.raises(MinirnnError, match=words):
        small("filtering").loss(batch)


def test_binary_series_hold_zeros_and_ones() -> None:
    with pytest.raises(MinirnnError, match=r"binary series hold zeros and ones; found 0\.5"):
        small("srnn", observation="binary").loss([np.array([[0, 0.5]])])


def test_imputation_needs_a_model_that_knows_of_gaps() -> None:
    with pytest.raises(MinirnnError, match="made without missing=True"):
        small("smoothing").impute(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"beta": 2.0}, r"beta must lie in \[0, 1\], got 2.0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"annealing": -1}, "annealing must not be negative, got -1"),
    ],
)
@pytest.mark.parametrize("kind", ["filtering", "srnn"])
def test_a_configuration_that_cannot_be_built_says_why(kind: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(kind, **changes)


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match='posterior must be "filtering" or "smoothing", got \'both\''):
        small("both")
    with pytest.raises(ValueError, match='bound must be "elbo", "iwae" or "fivo", got \'vimco\''):
        small("filtering").log_likelihood(series([2]), bound="vimco")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        small("filtering").log_likelihood(series([2]), samples=0)
    with pytest.raises(ValueError, match='resampling must be "systematic" or "multinomial", got \'none\''):
        resample(np.ones((1, 2)) / 2, np.random.default_rng(0), "none")  # type: ignore[arg-type]
