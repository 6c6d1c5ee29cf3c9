"""NeuralSSM with weights that make it a linear Gaussian model, whose likelihood and posterior are known, and NeuralSSM that learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minirnn.kernels.kalman import numpy_ as kalman
from minirnn.kernels.kalman.contract import Parameters
from minirnn.models import NeuralSSM, NeuralSSMConfig
from minirnn.optim import Adam

Numbers = np.ndarray[Any, np.dtype[np.float64]]

A, Q, C, R = 0.9, 0.5, 1.2, 0.8  # z_t = A z_{t-1} + N(0, Q), z_0 = 0;  x_t = C z_t + N(0, R)
SMALL = 1e-5  # tanh x = x (1 - x^2 / 3): what passes through it at this scale is linear to 1e-9
ON = 40.0  # sigmoid(40) = 1 - 4e-18


def stationary() -> tuple[float, float]:
    """(lam, a): far from the end, ln p(x_t, x_t+1, ... | z_t) = eta_t z_t - lam z_t^2 / 2 + const with eta_t = C x_t / R + a eta_{t+1}."""
    lam = C * C / R
    for _ in range(1000):
        lam = C * C / R + A * A * lam / (1 + Q * lam)
    return lam, A / (1 + Q * lam)


def linear_gaussian(posterior: Any = "smoothing", **options: Any) -> NeuralSSM:
    """Every network linear; the smoothing posterior p(z_t | z_{t-1}, x_t, x_t+1, ...) as far from the end as if there were none."""
    config = NeuralSSMConfig(
        observed=1, latent=1, hidden=1, encoder_hidden=1, combiner=1, emission_hidden=0, posterior=posterior, **options
    )
    model: Any = NeuralSSM(config, rng=0).to("float64")
    for p in model.parameters():
        p.data[...] = 0
    i, f, g, o = range(4)
    cell = model.transition  # h_t = tanh(SMALL z_{t-1})
    cell.weight_ih.data[g] = SMALL
    cell.bias_ih.data[[i, f, o]] = ON, -ON, ON
    model.prior.weight.data[0] = A / SMALL
    model.prior.bias.data[1] = np.log(Q) / 2
    model.emission.output.weight.data[0] = C
    model.emission.output.bias.data[1] = np.log(R) / 2
    lam, a = stationary()
    encoder = model.encoder  # SMALL eta_t, the forget gate being a
    encoder.weight_ih_l0.data[g, 0] = SMALL * C / R
    encoder.bias_ih_l0.data[[i, f, o]] = ON, np.log(a / (1 - a)), ON
    model.hint.weight.data[0] = 1
    rest = 1 / (1 + lam * Q)  # q = N(rest (mu + Q eta_t), rest Q)
    model.posterior.weight.data[0] = rest * Q / SMALL
    model.posterior.bias.data[1] = np.log(lam * Q) if posterior == "smoothing" else 0.2
    return model  # type: ignore[no-any-return]


def simulate(count: int, frames: int, seed: int = 0) -> Numbers:
    rng, z = np.random.default_rng(seed), np.zeros(count)
    x = np.empty((count, frames, 1))
    for t in range(frames):
        z = A * z + np.sqrt(Q) * rng.standard_normal(count)
        x[:, t, 0] = C * z + np.sqrt(R) * rng.standard_normal(count)
    return x


def exact(x: Numbers) -> Any:
    """The Kalman filter of the same model."""
    one, nothing = np.ones((1, 1)), np.zeros(1)
    return kalman.filter(Parameters(A * one, Q * one, C * one, R * one, nothing, nothing, nothing, Q * one), x)


def test_of_one_frame_every_weight_is_the_likelihood() -> None:
    """p(z_1 | x_1) is Gaussian: a posterior of gain lam Q / (1 + lam Q), lam = C^2 / R, is exact, whatever is drawn."""
    model: Any = linear_gaussian()
    lam = C * C / R
    model.posterior.weight.data[0] = Q / (1 + lam * Q) / SMALL
    model.posterior.bias.data[1] = np.log(lam * Q)
    x = simulate(20, 1)
    for bound in ("iwae", "fivo"):
        # ln w = ln p(x) with nothing left of z; weights of 1 / SMALL lose five digits of sixteen, tanh is linear to 1e-9
        np.testing.assert_allclose(model.log_likelihood(list(x), 3, 0, bound), exact(x).log_likelihood, atol=1e-6)


def test_the_smoothing_posterior_closes_the_gap_but_at_the_end() -> None:
    """ln w_t varies only where the end is near: 100 frames more cost nothing."""
    model = linear_gaussian()
    gaps = []
    for frames in (30, 130):
        x = simulate(50, frames)
        gaps.append(exact(x).log_likelihood - model.log_likelihood(list(x), 50, 0, "elbo"))
    assert 0 < gaps[1].mean() < 0.5
    # the elbo is the mean over 50 draws of what has a standard deviation below 10 nats in 130 frames, for each of 50 series
    assert abs(gaps[1].mean() - gaps[0].mean()) < 0.8


@pytest.mark.parametrize("posterior", ["filtering", "smoothing"])
def test_bounds_are_ordered_and_below_the_likelihood(posterior: str) -> None:
    model, x = linear_gaussian(posterior), simulate(300, 12)
    true = exact(x).log_likelihood
    bounds = [model.log_likelihood(list(x), k, 0, b) for k, b in ((1, "elbo"), (5, "iwae"), (50, "iwae"))]  # type: ignore[arg-type]
    for lower, higher in zip(bounds, [*bounds[1:], true], strict=True):
        gain = higher - lower
        assert gain.mean() > -4 * gain.std() / np.sqrt(len(gain))
    filtered = model.log_likelihood(list(x), 50, 0, "fivo")
    assert (true - filtered).mean() > -4 * (true - filtered).std() / np.sqrt(len(x))


@pytest.mark.parametrize("posterior", ["filtering", "smoothing"])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_the_particle_estimate_of_the_likelihood_is_unbiased(posterior: str, resampling: Any) -> None:
    """... also where it has resampled: the mean of e^(estimate - exact) over 4000 runs is 1."""
    model: Any = linear_gaussian(posterior, resampling=resampling)
    model.posterior.bias.data[1] = -2 if posterior == "smoothing" else 0.2  # wide, so that the weights have a variance
    model.posterior.weight.data[0] *= 0.5
    x = simulate(1, 8)
    ratio = np.exp(model.log_likelihood(list(x) * 4000, 8, 0, "fivo") - exact(x).log_likelihood)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))


def test_filtering_finds_the_kalman_filter() -> None:
    model, x = linear_gaussian("filtering"), simulate(1, 15)
    truth, found = exact(x), model.filter(x[0], 20000, 0)
    # of 20,000 particles of which half or more count: a standard error below std / 100
    std = np.sqrt(truth.cov[0, :, 0, 0])
    np.testing.assert_allclose(found.latent[:, 0], truth.mean[0, :, 0], atol=0.05 * std.max())
    np.testing.assert_allclose(found.std[:, 0], std, rtol=0.05)
    np.testing.assert_allclose(found.observation[:, 0], C * found.latent[:, 0], rtol=1e-9)
    assert found.log_likelihood == pytest.approx(truth.log_likelihood[0], abs=0.1)


def test_a_forecast_has_the_moments_of_the_model() -> None:
    model, x = linear_gaussian("filtering"), simulate(1, 15)
    truth, n = exact(x), 20000
    paths = model.forecast(x[0], 3, n, 0)[:, :, 0]
    mean, var = truth.mean[0, -1, 0], truth.cov[0, -1, 0, 0]
    for t in range(3):
        mean, var = A * mean, A * A * var + Q
        spread = np.sqrt(C * C * var + R)
        assert paths[:, t].mean() == pytest.approx(C * mean, abs=6 * spread / np.sqrt(n / 2))
        assert paths[:, t].std() == pytest.approx(spread, rel=0.05)


def test_imputation_draws_from_what_both_sides_say() -> None:
    """x_6 given the 11 others is Gaussian; its moments come from the joint covariance."""
    model, x = linear_gaussian("smoothing", missing=True), simulate(1, 12)[0]
    times = np.arange(12)
    state = np.array([[A ** abs(s - t) * Q * (1 - A ** (2 * (min(s, t) + 1))) / (1 - A * A) for s in times] for t in times])
    joint = C * C * state + R * np.eye(12)
    others = np.delete(times, 6)
    weights = np.linalg.solve(joint[np.ix_(others, others)], joint[others, 6])
    mean, std = weights @ x[others, 0], np.sqrt(joint[6, 6] - weights @ joint[others, 6])
    gap = x.copy()
    gap[6] = np.nan
    drawn = np.concatenate([model.impute(gap, 200, k, samples=2000)[:, 6, 0] for k in range(10)])
    assert drawn.mean() == pytest.approx(mean, abs=0.15 * std)
    assert drawn.std() == pytest.approx(std, rel=0.15)


def test_it_learns_more_than_frames_without_a_past() -> None:
    """A minute of the study, in short: a quarter of the way from independent frames to the exact likelihood, and never beyond it."""
    rng = np.random.default_rng(0)
    model = NeuralSSM(
        NeuralSSMConfig(observed=1, latent=1, hidden=8, encoder_hidden=8, combiner=8, emission_hidden=0, posterior="smoothing"), rng=0
    )
    model.start_from(list(simulate(200, 30, 1)))
    optimizer = Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        loss = model.loss(list(simulate(32, 30, int(rng.integers(2**31)))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = simulate(500, 30, 2)
    true, found = exact(x).log_likelihood / 30, model.log_likelihood(list(x), 1, 0) / 30
    alone = (-0.5 * (x / x.std()) ** 2 - np.log(x.std() * np.sqrt(2 * np.pi))).mean((1, 2))
    gain, missed = found - alone, true - found
    assert gain.mean() > 10 * gain.std() / np.sqrt(len(x))
    assert gain.mean() > 0.25 * (true - alone).mean()
    assert missed.mean() > 0
