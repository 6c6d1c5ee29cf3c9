"""The linear Gaussian state-space model against the dense joint Gaussian, published numbers, and finite differences."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import optim
from minirnn.data.sources import nile, robot
from minirnn.models import LinearGaussianConfig, LinearGaussianSSM
from minirnn.models.linear_gaussian_ssm import Observations
from minirnn.ops.kalman import kalman_log_likelihood, kalman_unrolled
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

_shared = runpy.run_path(str(Path(__file__).parents[1] / "kernels" / "gaussian.py"))  # each folder of tests is a package for itself
definite, dense = _shared["definite"], _shared["dense"]

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# After 0, 1, 2, 9 and 49 iterations of EM: the numbers of a MATLAB program, kept with the robot data.
ROBOT = {0: -3373.0135275, 1: -3289.97715247, 2: -3261.07946593, 9: -3227.68963288, 49: -3189.67574968}


def drawn(rng: np.random.Generator, n: int, p: int, k: int = 0, **more: Any) -> LinearGaussianSSM:
    inputs = {"F": rng.standard_normal((n, k)), "G": rng.standard_normal((p, k))} if k else {}
    return LinearGaussianSSM.from_matrices(
        A=0.6 * np.linalg.qr(rng.standard_normal((n, n)))[0],
        C=rng.standard_normal((p, n)),
        Q=definite(rng, n),
        R=definite(rng, p),
        b=rng.standard_normal(n),
        d=rng.standard_normal(p),
        mean=rng.standard_normal(n),
        covariance=definite(rng, n),
        **inputs,
        **more,
    )


@given(T=st.integers(1, 5), n=st.integers(1, 3), p=st.integers(1, 3), k=st.integers(0, 2), seed=st.integers(0, 50))
def test_likelihood_smoother_and_forecast_are_those_of_the_joint_gaussian(T: int, n: int, p: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, steps = drawn(rng, n, p, k), 3
    x = rng.standard_normal((T, p))
    x[rng.random(x.shape) < 0.3] = np.nan
    u = rng.standard_normal((T + steps, k)) if k else None
    own = None if u is None else u[:T]
    m = model.matrices()
    longer = np.vstack((x, np.full((steps, p), np.nan)))
    joint = dense(m.parameters(own), x)
    beyond = dense(m.parameters(u), longer)
    smoothed = model.smooth(x, inputs=own)
    np.testing.assert_allclose(model.log_likelihood(x, inputs=own), [joint.log_likelihood], **CLOSE)
    np.testing.assert_allclose(smoothed.mean[0], joint.mean, **CLOSE)
    np.testing.assert_allclose(smoothed.cov[0], [joint.cov[t, :, t] for t in range(T)], **CLOSE)
    found = model.forecast(x, steps, level=0.95, inputs=u)
    d = np.broadcast_to(m.parameters(u).d, (T + steps, p))
    for h in range(steps):
        cov = m.C @ beyond.cov[T + h, :, T + h] @ m.C.T + m.R
        mean = m.C @ beyond.mean[T + h] + d[T + h]
        np.testing.assert_allclose(found.mean[0, h], mean, **CLOSE)
        np.testing.assert_allclose(found.cov[0, h], cov, **CLOSE)
        np.testing.assert_allclose(found.upper[0, h] - mean, 1.959963984540054 * np.sqrt(np.diag(cov)), **CLOSE)
        np.testing.assert_allclose(found.lower[0, h] + found.upper[0, h], 2 * mean, **CLOSE)


def test_a_list_of_sequences_is_each_of_them(rng: np.random.Generator) -> None:
    model = drawn(rng, 3, 2, 1)
    xs, us = [rng.standard_normal((T, 2)) for T in (4, 7, 1)], [rng.standard_normal((T, 1)) for T in (4, 7, 1)]
    apart = [model.log_likelihood(x, inputs=u)[0] for x, u in zip(xs, us, strict=True)]
    np.testing.assert_allclose(model.log_likelihood(xs, inputs=us), apart, rtol=1e-12)
    ahead = model.forecast(xs, 2, inputs=np.zeros((9, 1)))
    np.testing.assert_allclose(model.log_likelihood(model.observations(xs, inputs=us).x, [4, 7, 1], _padded(us)), apart, rtol=1e-12)
    np.testing.assert_allclose(ahead.mean[2], model.forecast(xs[2], 2, inputs=np.zeros((3, 1))).mean[0], rtol=1e-12)
    batch = model.observations(xs, inputs=us)
    assert model.loss(batch).item() == pytest.approx(-sum(apart) / 12, rel=1e-12)


def _padded(us: list[Any]) -> Any:
    whole = np.zeros((3, 7, 1))
    for row, u in zip(whole, us, strict=True):
        row[: len(u)] = u
    return whole


@pytest.mark.parametrize("diffuse", [False, True])
def test_gradient_and_second_derivative_of_the_loss(diffuse: bool, rng: np.random.Generator) -> None:
    model = LinearGaussianSSM(LinearGaussianConfig(2, 2, 1, diffuse), rng=rng)
    x = rng.standard_normal((2, 4, 2))
    x[0, 1], x[1, 2, 0] = np.nan, np.nan
    u = rng.standard_normal((2, 4, 1))
    batch = Observations(x, np.array([4, 3]), u)
    parameters = list(model.parameters())
    assert gradcheck(lambda *_: model.loss(batch), parameters)
    short = Observations(x[:, :3], np.array([3, 2]), u[:, :3])
    assert gradgradcheck(lambda *_: model.loss(short), parameters, elementwise=0)


def test_the_unrolled_form_is_the_filter(rng: np.random.Generator) -> None:
    m = drawn(rng, 3, 2).matrices()
    y = rng.standard_normal((3, 5, 2))
    y[1, 2, 0], lengths = np.nan, np.array([5, 3, 1])
    tensors = [Tensor(a) for a in m.parameters()[:8]]
    fused, unrolled = kalman_log_likelihood(*tensors, y=y, lengths=lengths), kalman_unrolled(*tensors, y=y, lengths=lengths)
    np.testing.assert_allclose(fused.numpy(), unrolled.numpy(), rtol=1e-12)
    with pytest.raises(RuntimeError, match="the kalman kernel 'square_root' has no derivative"):
        kalman_log_likelihood(*tensors, y=y, kernel="square_root")


def test_samples_have_the_moments_of_the_model(rng: np.random.Generator) -> None:
    """The mean and covariance of all of x, over 20,000 draws: each within 5 standard errors of the dense joint Gaussian's."""
    model, count = drawn(rng, 2, 1), 20_000
    z, x = model.sample(3, count, rng=1)
    prior = dense(model.matrices().parameters(), np.full((3, 1), np.nan))
    flat, V = z.reshape(count, 6), prior.cov.reshape(6, 6)
    assert (np.abs(flat.mean(0) - prior.mean.ravel()) < 5 * np.sqrt(np.diag(V) / count)).all()
    error = np.sqrt((V**2 + np.outer(np.diag(V), np.diag(V))) / count)
    assert (np.abs(np.cov(flat.T) - V) < 5 * error).all()
    m = model.matrices()
    noise = (x - z @ m.C.T - m.d).ravel()
    assert abs(noise.var() / m.R[0, 0] - 1) < 5 * np.sqrt(2 / noise.size)
    np.testing.assert_array_equal(model.sample(3, 4, rng=7).x, model.sample(3, 4, rng=7).x)


def test_the_robots_fifty_log_likelihoods(data_dir: Path) -> None:
    pytest.importorskip("scipy", reason="reads a MATLAB file")
    if not (data_dir / "lgssm" / "robot.mat").is_file():
        pytest.skip("needs lgssm/robot.mat in MINIRNN_DATA")
    r = robot.read(str(data_dir))
    for i, value in ROBOT.items():
        assert r.log_likelihoods[i] == pytest.approx(value, abs=1e-7)
    start = {"A": r.A, "C": r.C, "Q": 10 * np.eye(5), "R": 10 * np.eye(2), "d": r.d, "mean": r.m0, "covariance": r.P0}
    model = LinearGaussianSSM.from_matrices(**start, F=np.eye(5))
    found = model.em(r.x, 50, learn=["Q", "R"], inputs=r.b)
    np.testing.assert_allclose(found, r.log_likelihoods, rtol=0, atol=1e-6)


def test_the_nile() -> None:
    """Durbin and Koopman (2012), section 2.10: the local level model with a diffuse start, at and near the maximum."""
    (flow,) = nile.load().train
    model = LinearGaussianSSM.local_level(1469.18, 15098.52)
    assert model.log_likelihood(flow)[0] == pytest.approx(-632.5456, abs=1e-4)
    assert -100 * model.loss(flow).item() == pytest.approx(-632.5456, abs=1e-4)
    other = LinearGaussianSSM.local_level(1000.0, 10_000.0)
    likelihoods = other.em(flow, 1000, learn=["Q", "R"])
    assert np.diff(likelihoods).min() > -1e-9 * 632
    assert likelihoods[-1] == pytest.approx(-632.5456, abs=1e-2)
    assert likelihoods[-1] < -632.5456 + 1e-3


def test_em_recovers_the_parameters(rng: np.random.Generator) -> None:
    """In one dimension all but the scale of z is determined; with C = 1 fixed, all is. 60 x 50 steps: standard errors below 0.03."""
    truth = LinearGaussianSSM.from_matrices(A=[[0.8]], C=[[1.0]], Q=[[0.5]], R=[[0.3]], b=[0.2])
    x = truth.sample(50, 60, rng=3).x
    model = LinearGaussianSSM.from_matrices(A=[[0.1]], C=[[1.0]], Q=[[1.0]], R=[[1.0]])
    likelihoods = model.em(x, 150, learn=["A", "b", "Q", "R"])
    assert np.diff(likelihoods).min() > -1e-9 * abs(likelihoods[0])
    assert model.log_likelihood(x).sum() >= truth.log_likelihood(x).sum()
    found, want = model.matrices(), truth.matrices()
    for name in ("A", "b", "Q", "R"):
        assert abs(getattr(found, name) - getattr(want, name)).item() < 0.1, name


@pytest.mark.parametrize(
    "x",
    [np.ones((20, 2)), np.zeros((20, 2)), np.linspace(0, 1, 40).reshape(20, 2), 1e6 * np.arange(16.0).reshape(8, 2), np.ones((1, 2))],
    ids=["constant", "zero", "line", "large line", "one step"],
)
def test_a_thousand_iterations_never_end_in_nan(x: Any) -> None:
    """Data that a model without noise fits exactly: the likelihood has no bound, and covariances shrink towards zero."""
    model = LinearGaussianSSM(LinearGaussianConfig(2, 2), rng=0)
    likelihoods = model.em(x, 1000)
    assert np.isfinite(likelihoods).all()
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_a_thousand_iterations_with_holes_never_fall_nor_end_in_nan(rng: np.random.Generator) -> None:
    x = drawn(rng, 2, 2).sample(30, 3, rng=0).x
    x[rng.random(x.shape) < 0.4] = np.nan
    likelihoods = LinearGaussianSSM(LinearGaussianConfig(2, 2), rng=0).em(x, 1000, lengths=[30, 5, 1])
    assert np.isfinite(likelihoods).all()
    assert np.diff(likelihoods).min() > -1e-8 * abs(likelihoods[-1])


def test_gradients_learn_what_the_data_say() -> None:
    """At the maximum, the data are at least as likely as under the parameters that made them; at the start, far less so."""
    truth = LinearGaussianSSM.from_matrices(A=[[0.9]], C=[[1.0]], Q=[[0.09]], R=[[0.04]])
    x = truth.sample(40, 10, rng=0).x
    model = LinearGaussianSSM.from_matrices(A=[[0.1]], C=[[1.0]], Q=[[1.0]], R=[[1.0]])
    optimizer = optim.Adam(list(model.parameters()), lr=0.05)
    first = model.loss(x).item()
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    assert model.loss(x).item() < truth.loss(x).item() < first - 0.5


def test_a_saved_model_is_the_same_model(rng: np.random.Generator) -> None:
    model, x = drawn(rng, 2, 3), rng.standard_normal((6, 3))
    other = LinearGaussianSSM(model.config)
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.log_likelihood(x), model.log_likelihood(x))
    single = LinearGaussianSSM(model.config, kernel="numpy").to("float32")
    assert single.filter(x).mean.dtype == np.float32


def test_factors_and_singular_covariances(rng: np.random.Generator) -> None:
    B = rng.standard_normal((3, 1))
    model = LinearGaussianSSM.from_matrices(A=0.5 * np.eye(3), C=np.ones((1, 3)), B=B, D=[[1.0, 1.0]], covariance=np.zeros((3, 3)))
    np.testing.assert_allclose(model.matrices().Q, B @ B.T, atol=1e-12)
    np.testing.assert_allclose(model.matrices().R, [[2.0]])
    x = rng.standard_normal((5, 1))
    joint = dense(model.matrices().parameters(), x)
    np.testing.assert_allclose(model.log_likelihood(x), [joint.log_likelihood], **CLOSE)
    np.testing.assert_allclose(model.smooth(x).mean[0], joint.mean, **CLOSE)


I2: Any = np.eye(2)
GOOD: dict[str, Any] = {"A": I2, "C": I2, "Q": I2, "R": I2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Q": [[1.0, 0.0], [0.0, -1.0]]}, r"Q \(2, 2\) is not positive semi-definite, its least eigenvalue is -1"),
        ({"R": [[1.0, 0.5], [0.0, 1.0]]}, r"R \(2, 2\) is not symmetric: it differs from its transpose by 0.5"),
        ({"covariance": -I2}, r"covariance \(2, 2\) is not positive semi-definite"),
        ({"Q": np.eye(3)}, r"Q must be \(n, n\) = \(2, 2\), got \(3, 3\)"),
        ({"A": np.ones((2, 3))}, r"A must be \(n, n\) = \(2, 2\), got \(2, 3\)"),
        ({"A": np.nan * I2}, "A has a NaN or an infinite number in it"),
        ({"B": I2}, r"give Q \(n, n\), or B with B B\^T = Q"),
        ({"R": None}, r"give R \(p, p\), or D"),
        ({"b": np.ones(3)}, r"b must be \(n,\) = \(2,\), got \(3,\)"),
        ({"diffuse": True, "mean": np.zeros(2)}, "a diffuse start takes its mean and covariance from the first observation"),
    ],
)
def test_matrices_that_make_no_model(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LinearGaussianSSM.from_matrices(**{**GOOD, **changes})


def test_data_that_do_not_fit() -> None:
    model, x = LinearGaussianSSM.from_matrices(**GOOD), np.zeros((4, 2))
    with pytest.raises(
        ValueError, match=r"x must be \(T, p\), \(N, T, p\) or a list of \(T_n, p\) with p = 2 observed numbers, got \(1, 4, 3\)"
    ):
        model.filter(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="the sequences of x have different widths: 2, 3"):
        model.filter([np.zeros((4, 2)), np.zeros((4, 3))])
    with pytest.raises(ValueError, match="x has an infinite number; what is missing is NaN"):
        model.filter(np.full((4, 2), np.inf))
    with pytest.raises(ValueError, match="the model was made for inputs=0, and inputs were given"):
        model.smooth(x, inputs=np.zeros((4, 1)))
    with pytest.raises(ValueError, match="cannot learn F, H; learn is a subset of A, C, Q, R, b, covariance, d, mean"):
        model.em(x, 1, learn=["A", "H", "F"])
    with pytest.raises(ValueError, match="level in"):
        model.forecast(x, 2, level=1.0)
    with pytest.raises(ValueError, match="states = observations"):
        LinearGaussianConfig(2, 1, diffuse=True)
    with pytest.raises(ValueError, match="at least 1, got states=0"):
        LinearGaussianSSM(LinearGaussianConfig())
    diffuse = LinearGaussianSSM.from_matrices(**GOOD, diffuse=True)
    with pytest.raises(ValueError, match="needs the first observation, which is missing in sequence 0"):
        diffuse.filter([[np.nan, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="has no distribution to draw from"):
        diffuse.sample(3)
    model.A.data[0, 0] = np.nan
    for use in (model.log_likelihood, model.loss):
        with pytest.raises(ValueError, match="A has a NaN or an infinite number in it"):
            use(x)
