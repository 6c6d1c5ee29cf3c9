"""The Kalman filter, smoother and score against the dense joint Gaussian, against each other, and against finite differences."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import choose, explain, load
from minirnn.kernels.kalman import numba_cpu, numpy_
from minirnn.kernels.kalman.contract import Parameters, Smoothed, diffuse_start, with_inputs
from minirnn.kernels.kalman.em import Linear, floored, maximise

from .gaussian import Array, definite, dense, drawn, of_sequence

KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # numbers of size 1 to 100, some hundred operations on well-conditioned matrices


def blocks(cov: Array) -> tuple[Array, Array]:
    """Cov[z_t, z_t] (T, n, n) and Cov[z_t, z_{t-1}] (T - 1, n, n) of a dense covariance (T, n, T, n)."""
    T = len(cov)
    return np.array([cov[t, :, t] for t in range(T)]), np.array([cov[t, :, t - 1] for t in range(1, T)]).reshape(T - 1, *cov.shape[1::2])


def check_smoothed(parameters: Parameters, y: Array, lengths: Array, smoothed: Smoothed) -> None:
    for s, length in enumerate(lengths):
        joint = dense(of_sequence(parameters, s, length), y[s, :length])
        cov, cross = blocks(joint.cov)
        np.testing.assert_allclose(smoothed.mean[s, :length], joint.mean, **CLOSE)
        np.testing.assert_allclose(smoothed.cov[s, :length], cov, **CLOSE)
        np.testing.assert_allclose(smoothed.cross[s, 1:length], cross, **CLOSE)


@KERNELS
@given(
    N=st.integers(1, 3),
    T=st.integers(1, 6),
    n=st.integers(1, 4),
    p=st.integers(1, 3),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_everything_is_the_dense_joint_gaussian(kernel: ModuleType, N: int, T: int, n: int, p: int, missing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters, y = drawn(rng, N, T, n, p, missing)
    lengths = rng.integers(1, T + 1, N)
    for s, length in enumerate(lengths):
        y[s, length:] = 1e300  # what lies behind the end is never looked at
    filtered = kernel.filter(parameters, y, lengths)
    check_smoothed(parameters, y, lengths, kernel.smooth(parameters, filtered))
    for s, length in enumerate(lengths):
        total = 0.0
        for t in range(length):
            own, seen = of_sequence(parameters, s, t + 1), y[s, : t + 1].copy()
            upto = dense(own, seen)
            np.testing.assert_allclose(filtered.mean[s, t], upto.mean[t], **CLOSE)
            np.testing.assert_allclose(filtered.cov[s, t], upto.cov[t, :, t], **CLOSE)
            np.testing.assert_allclose(filtered.log_likelihoods[s, t], upto.log_likelihood - total, **CLOSE)
            total = upto.log_likelihood
            seen[t] = np.nan
            before = dense(own, seen)
            np.testing.assert_allclose(filtered.predicted_mean[s, t], before.mean[t], **CLOSE)
            np.testing.assert_allclose(filtered.predicted_cov[s, t], before.cov[t, :, t], **CLOSE)
        np.testing.assert_allclose(filtered.log_likelihood[s], total, **CLOSE)
    for array in (*filtered[:5], *kernel.smooth(parameters, filtered)):
        for s, length in enumerate(lengths):
            assert not array[s, length:].any()


def test_a_smoother_gain_that_is_one_step_late_is_caught(rng: np.random.Generator) -> None:
    parameters, y = drawn(rng, 1, 6, 3, 2, 0.2)
    filtered = numpy_.filter(parameters, y)
    late = filtered._replace(predicted_cov=np.roll(filtered.predicted_cov, 1, axis=1))
    with pytest.raises(AssertionError):
        check_smoothed(parameters, y, np.array([6]), numpy_.smooth(parameters, late))


@KERNELS
def test_the_states_of_a_model_without_noise_are_found(kernel: ModuleType) -> None:
    """A position and a constant speed, known but for where it starts: predicted covariances are singular, and nothing is divided by."""
    A, C = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    parameters = Parameters(A, np.zeros((2, 2)), C, np.eye(1), np.zeros(2), np.zeros(1), np.zeros(2), np.diag([1.0, 0.0]))
    y = np.array([[[0.3], [-0.2], [np.nan], [1.0]]])
    filtered = kernel.filter(parameters, y)
    smoothed = kernel.smooth(parameters, filtered)
    check_smoothed(parameters._replace(b=np.zeros((1, 4, 2)), d=np.zeros((1, 4, 1))), y, np.array([4]), smoothed)
    score = kernel.score(parameters, y, filtered, np.ones(1))
    assert all(np.isfinite(g).all() for g in score)


@KERNELS
@given(seed=st.integers(0, 30))
def test_the_score_is_the_derivative(kernel: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    N, T, n, p = 2, 5, int(rng.integers(1, 4)), int(rng.integers(1, 4))
    parameters, y = drawn(rng, N, T, n, p, 0.25)
    lengths, weights, h = np.array([T, 3]), rng.standard_normal(N), 2.0**-17
    score = kernel.score(parameters, y, kernel.filter(parameters, y, lengths), weights)
    for name, gradient in score._asdict().items():
        value = np.broadcast_to(getattr(parameters, name), gradient.shape)
        v = rng.standard_normal(value.shape)
        v = v + np.swapaxes(v, -1, -2) if name in ("Q", "R", "P0") else v
        ahead, behind = (
            weights @ numpy_.filter(parameters._replace(**{name: value + step * v}), y, lengths).log_likelihood for step in (h, -h)
        )
        slope = (ahead - behind) / (2 * h)
        # central differences: h^2 of a third derivative, and rounding of some hundreds over h
        assert abs((gradient * v).sum() - slope) < 1e-7 * (1 + np.linalg.norm(gradient) * np.linalg.norm(v)), name


@KERNELS
def test_the_score_is_fishers_identity(kernel: ModuleType, rng: np.random.Generator) -> None:
    """d ln p(x) / d theta = E[d ln p(x, z) / d theta | x], written out with the smoothed moments and with Q^-1, R^-1 and P0^-1."""
    T, n, p = 6, 3, 2
    parameters, y = drawn(rng, 1, T, n, p, 0.0)
    y[0, 2] = np.nan
    A, Q, C, R, b, d, m0, P0 = parameters[:8]
    filtered = kernel.filter(parameters, y)
    (m,), (V,), (cross,) = kernel.smooth(parameters, filtered)
    dA, dQ, dC, dR, db = np.zeros_like(A), np.zeros_like(Q), np.zeros_like(C), np.zeros_like(R), np.zeros((T, n))
    Qi, Ri, Pi = np.linalg.inv(Q), np.linalg.inv(R), np.linalg.inv(P0)
    for t in range(1, T):
        e = m[t] - A @ m[t - 1] - b[0, t]
        E = np.outer(e, e) + V[t] - A @ cross[t].T - cross[t] @ A.T + A @ V[t - 1] @ A.T
        dA += Qi @ (np.outer(e, m[t - 1]) + cross[t] - A @ V[t - 1])
        dQ += 0.5 * (Qi @ E @ Qi - Qi)
        db[t] = Qi @ e
    for t in [t for t in range(T) if t != 2]:
        e = y[0, t] - C @ m[t] - d[0, t]
        dC += Ri @ (np.outer(e, m[t]) - C @ V[t])
        dR += 0.5 * (Ri @ (np.outer(e, e) + C @ V[t] @ C.T) @ Ri - Ri)
    off = m[0] - m0
    score = kernel.score(parameters, y, filtered, np.ones(1))
    for got, want in zip(score[:5], (dA, dQ, dC, dR, db[None]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(score.m0[0], Pi @ off, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(score.P0[0], 0.5 * (Pi @ (np.outer(off, off) + V[0]) @ Pi - Pi), rtol=1e-8, atol=1e-8)


@given(
    N=st.integers(1, 5),
    T=st.integers(1, 7),
    n=st.integers(1, 9),
    p=st.integers(1, 9),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_the_compiled_form_is_the_reference(N: int, T: int, n: int, p: int, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    double, y = drawn(rng, N, T, n, p, 0.2)
    parameters, y = Parameters(*(None if a is None else a.astype(dtype) for a in double)), y.astype(dtype)
    lengths, weights = rng.integers(1, T + 1, N), rng.standard_normal(N).astype(dtype)
    results = []
    for kernel in (numpy_, numba_cpu):
        filtered = kernel.filter(parameters, y, lengths)
        results.append((*filtered[:5], *kernel.smooth(parameters, filtered), *kernel.score(parameters, y, filtered, weights)))
    for want, got in zip(*results, strict=True):
        assert got.dtype == want.dtype == dtype
        # eps times the condition number of S (below 1e4 for noise of 0.1 and more) times some ten operations
        np.testing.assert_allclose(got, want, rtol=0, atol=1e5 * np.finfo(dtype).eps * max(1, float(np.abs(want).max(initial=0))))


@pytest.mark.usefixtures("groups")
def test_a_sequence_has_the_same_bits_alone_and_in_company(rng: np.random.Generator) -> None:
    parameters, y = drawn(rng, 4, 6, 3, 2, 0.2)
    lengths = np.array([6, 1, 4, 6])
    together = numba_cpu.filter(parameters, y, lengths)
    smoothed = numba_cpu.smooth(parameters, together)
    for s, length in enumerate(lengths):
        own = parameters._replace(b=parameters.b[s : s + 1, :length], d=parameters.d[s : s + 1, :length])
        alone = numba_cpu.filter(own, y[s : s + 1, :length])
        for whole, one in zip((*together[:5], *smoothed), (*alone[:5], *numba_cpu.smooth(own, alone)), strict=True):
            np.testing.assert_array_equal(whole[s, :length], one[0])


def test_inputs_are_offsets(rng: np.random.Generator) -> None:
    parameters, _ = drawn(rng, 2, 5, 3, 2, 0.0)
    u, F, G = rng.standard_normal((2, 5, 4)), rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
    found = with_inputs(parameters, u, F, G)
    np.testing.assert_allclose(found.b[1, 3], parameters.b[1, 3] + F @ u[1, 3], rtol=1e-13)
    np.testing.assert_allclose(found.d[0, 2], parameters.d[0, 2] + G @ u[0, 2], rtol=1e-13)
    assert with_inputs(parameters, u).b is parameters.b


@KERNELS
def test_a_diffuse_start_is_the_limit_of_vague_ones(kernel: ModuleType, rng: np.random.Generator) -> None:
    """With P0 = v I, ln p(x_2.. | x_1) and the smoothed states differ from the limit by O(1 / v)."""
    parameters, y = drawn(rng, 1, 5, 2, 2, 0.0)
    sharp, cut = diffuse_start(parameters, y)
    filtered = kernel.filter(sharp, cut)
    v = 1e7
    vague = kernel.filter(parameters._replace(P0=v * np.eye(2)), y)
    assert filtered.log_likelihoods[0, 0] == 0
    np.testing.assert_allclose(filtered.log_likelihoods[0, 1:], vague.log_likelihoods[0, 1:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kernel.smooth(sharp, filtered).mean, kernel.smooth(parameters, vague).mean, rtol=1e-5, atol=1e-5)


def linear(rng: np.random.Generator, n: int, p: int, k: int) -> Linear:
    return Linear(
        rng.standard_normal((n, n)) / (2 * np.sqrt(n)),
        rng.standard_normal((n, k)),
        rng.standard_normal(n),
        definite(rng, n),
        rng.standard_normal((p, n)),
        rng.standard_normal((p, k)),
        rng.standard_normal(p),
        definite(rng, p),
        rng.standard_normal(n),
        definite(rng, n),
    )


@given(seed=st.integers(0, 60))
def test_the_maximisation_step_raises_the_likelihood_whatever_is_learnt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, p, k = (int(x) for x in rng.integers(1, 4, 3))
    model = linear(rng, n, p, k)
    y, u = 2 * rng.standard_normal((2, 12, p)), rng.standard_normal((2, 12, k))
    y[rng.random(y.shape) < 0.25] = np.nan
    lengths = np.array([12, 7])
    learn = [name for name in Linear._fields if rng.random() < 0.5]
    last = -np.inf
    for _ in range(4):
        parameters = model.parameters(u)
        filtered = numpy_.filter(parameters, y, lengths)
        total = float(filtered.log_likelihood.sum())
        assert total >= last - 1e-9 * abs(total)
        last = total
        new = maximise(model, y, numpy_.smooth(parameters, filtered), lengths, learn, u)
        for name in set(Linear._fields) - set(learn):
            np.testing.assert_array_equal(getattr(new, name), getattr(model, name))
        model = new


def test_a_covariance_is_raised_to_the_floor_and_else_left_alone(rng: np.random.Generator) -> None:
    healthy = definite(rng, 3)
    np.testing.assert_array_equal(floored(healthy, np.ones(3)), 0.5 * (healthy + healthy.T))
    least = np.finfo(np.float64).eps ** 0.75
    flat = floored(np.diag([1.0, 0.0]), np.array([1.0, 100.0]))
    np.testing.assert_allclose(flat, np.diag([1.0, 100 * least]), rtol=1e-9, atol=0)


def test_the_registry_knows_it() -> None:
    assert choose("kalman", dtype=np.float64).name == "numba"
    assert load("kalman", "numpy") is numpy_
    text = explain(501, 1, 2, 5, dtype="float64", cell="kalman")
    assert "p=2 observed, n=5 states" in text
    assert "runs" in text


@KERNELS
def test_what_does_not_fit_is_named(kernel: ModuleType, rng: np.random.Generator) -> None:
    parameters, y = drawn(rng, 2, 4, 3, 2, 0.0)
    with pytest.raises(ValueError, match=r"kalman: C must be \(p, n\) = \(1, 3\)"):
        kernel.filter(parameters, y[..., :1].copy())
    with pytest.raises(ValueError, match=r"kalman: Q must be \(n, n\) with N=2, T=4, n=3, p=2, got \(2, 2\)"):
        kernel.filter(parameters._replace(Q=np.eye(2)), y)
    with pytest.raises(ValueError, match=r"kalman: lengths must be \(N,\) = \(2,\) integers from 1 to T=4, got \[0 5\]"):
        kernel.filter(parameters, y, np.array([0, 5]))
    with pytest.raises(TypeError, match="kalman: C is float64 and y is float32"):
        kernel.filter(parameters, y.astype(np.float32))
    with pytest.raises(np.linalg.LinAlgError, match=r"S = C P C.T \+ R is not positive definite at step 0 of sequence 0"):
        kernel.filter(parameters._replace(R=-100 * np.eye(2)), y)
    with pytest.raises(ValueError, match="a diffuse start needs as many observed numbers as states"):
        diffuse_start(parameters, y)
