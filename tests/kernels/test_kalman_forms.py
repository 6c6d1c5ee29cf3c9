"""The square-root and the parallel form give what the covariance form gives, and each does what it is there for."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.kalman import numpy_, parallel, square_root
from minirnn.kernels.kalman.contract import Filtered, Parameters

Array = np.ndarray[Any, Any]
FORMS = [square_root, parallel]


def covariance(size: int, rng: np.random.Generator) -> Array:
    half = rng.standard_normal((size, size))
    return half @ half.T + 0.1 * np.eye(size)


def problem(N: int, T: int, n: int, p: int, missing: float, rng: np.random.Generator) -> tuple[Parameters, Array]:
    """A stable model with offsets of every shape, and observations of which some are missing."""
    A = rng.standard_normal((n, n))
    parameters = Parameters(
        A=0.95 * A / np.abs(np.linalg.eigvals(A)).max(),
        Q=covariance(n, rng),
        C=rng.standard_normal((p, n)),
        R=covariance(p, rng),
        b=rng.standard_normal((T, n)),
        d=rng.standard_normal((N, T, p)),
        m0=rng.standard_normal(n),
        P0=covariance(n, rng),
    )
    y = 3 * rng.standard_normal((N, T, p))
    y[rng.random(y.shape) < missing] = np.nan
    return parameters, y


def single(parameters: Parameters) -> Parameters:
    return Parameters(*(None if part is None else part.astype(np.float32) for part in parameters))


def agree(form: ModuleType, parameters: Parameters, y: Array, lengths: Array | None = None) -> None:
    """To 1e-9 of the largest number, as much as float64 keeps where condition numbers are below a million."""
    expected, found = numpy_.filter(parameters, y, lengths), form.filter(parameters, y, lengths)
    pairs = [(name, getattr(found, name), getattr(expected, name)) for name in Filtered._fields if name not in ("lengths", "factor")]
    expected_smoothed, found_smoothed = numpy_.smooth(parameters, expected), form.smooth(parameters, found)
    pairs += [(f"smoothed {name}", getattr(found_smoothed, name), part) for name, part in expected_smoothed._asdict().items()]
    for name, a, b in pairs:
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(1, np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("form", FORMS)
@given(
    N=st.integers(1, 3),
    T=st.integers(1, 17),
    n=st.integers(1, 4),
    p=st.integers(1, 3),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_it_agrees_with_the_covariance_form(form: ModuleType, N: int, T: int, n: int, p: int, missing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters, y = problem(N, T, n, p, missing, rng)
    agree(form, parameters, y)
    agree(form, parameters, y, rng.integers(1, T + 1, N))


@pytest.mark.parametrize("form", FORMS)
def test_a_state_that_is_known_and_noise_that_reaches_a_part_of_it(form: ModuleType, rng: np.random.Generator) -> None:
    parameters, y = problem(2, 9, 3, 2, 0.2, rng)
    B = rng.standard_normal((3, 1))
    agree(form, parameters._replace(P0=np.zeros((3, 3))), y)
    agree(form, parameters._replace(Q=B @ B.T), y)
    agree(form, parameters._replace(Q=B @ B.T, B=B, P0=B @ B.T, B0=B), y)
    agree(form, parameters._replace(Q=np.zeros((3, 3)), P0=np.diag([1.0, 0, 0])), y)


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_after_a_sequence_s_end_changes_nothing(form: ModuleType, rng: np.random.Generator) -> None:
    parameters, y = problem(2, 8, 2, 2, 0.1, rng)
    other = y.copy()
    other[0, 3:] = 1e6
    lengths = np.array([3, 8])
    for a, b in zip(form.filter(parameters, y, lengths)[:5], form.filter(parameters, other, lengths)[:5], strict=True):
        assert np.array_equal(a, b)
        assert not a[0, 3:].any()


def nearly_collinear() -> tuple[Parameters, Array]:
    """Two sensors that measure almost the same, exactly: covariances with condition numbers above 1e10.

    delta is a power of two, so that float32 holds the problem as it is. Kaminski, Bryson and Schmidt (1971) have an example of the kind.
    """
    delta, T = 2.0**-17, 50
    C = np.array([[1, 1], [1, 1 + delta]])
    parameters = Parameters(
        A=np.eye(2),
        Q=2.0**-40 * np.eye(2),
        C=C,
        R=delta**2 * np.eye(2),
        b=np.zeros(2),
        d=np.zeros(2),
        m0=np.zeros(2),
        P0=np.eye(2),
    )
    noise = delta * np.random.default_rng(0).standard_normal((1, T, 2))
    return parameters, np.float32(C @ [0.75, -0.25] + noise).astype(np.float64)


def test_float32_at_condition_number_1e10() -> None:
    parameters, y = nearly_collinear()
    exact = square_root.filter(parameters, y)
    assert np.linalg.cond(exact.cov).max() > 1e10
    # float64 has 16 digits, of which the covariance form loses 10.
    assert exact.log_likelihood == pytest.approx(numpy_.filter(parameters, y).log_likelihood, rel=1e-6)

    with pytest.raises(np.linalg.LinAlgError, match=r"is not positive definite at step 0 .* or by square roots"):
        numpy_.filter(single(parameters), y.astype(np.float32))

    found = square_root.filter(single(parameters), y.astype(np.float32))
    smoothed = square_root.smooth(single(parameters), found)
    exact_smoothed = square_root.smooth(parameters, exact)
    for array in (*found[:5], found.factor, *smoothed):
        assert array is not None
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    # U has condition number sqrt(1e10): of float32's seven digits two remain, and T steps of rounding take part of the second.
    np.testing.assert_allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-2)
    for a, b in ((found, exact), (smoothed, exact_smoothed)):
        np.testing.assert_allclose(a.cov, b.cov, rtol=0, atol=1e-2 * np.abs(exact.cov[:, -1]).max() + 1e-2 * np.abs(b.cov).max())
        assert (np.abs(a.mean - b.mean) < np.sqrt(np.diagonal(b.cov, axis1=2, axis2=3))).all()  # within a standard deviation
    assert found.factor is not None
    assert (np.diagonal(found.factor, axis1=2, axis2=3) != 0).all()  # U U^T is positive definite


def test_float32_smoothing_of_a_vague_start() -> None:
    """Position, speed and acceleration, of which nothing is known at first; the covariance form loses its smoothed covariances."""
    rng, T = np.random.default_rng(0), 50
    A = np.array([[1, 1, 0.5], [0, 1, 1], [0, 0, 1]])
    parameters = Parameters(
        A=A,
        Q=np.diag([1e-8, 1e-8, 1e-4]),
        C=np.array([[1.0, 0, 0]]),
        R=np.eye(1),
        b=np.zeros(3),
        d=np.zeros(1),
        m0=np.zeros(3),
        P0=1e6 * np.eye(3),
    )
    t = np.arange(T)
    y = (1 + 2 * t + 0.05 * t**2 + rng.standard_normal(T))[None, :, None]
    exact = numpy_.smooth(parameters, numpy_.filter(parameters, y))
    errors = {}
    for form in (numpy_, square_root):
        filtered = form.filter(single(parameters), y.astype(np.float32))
        cov = form.smooth(single(parameters), filtered).cov
        errors[form] = np.linalg.norm(cov - exact.cov, axis=(2, 3)) / np.linalg.norm(exact.cov, axis=(2, 3))
    assert errors[numpy_].max() > 1
    assert errors[square_root].max() < 1e-4


def test_a_factor_is_the_root_of_its_covariance(rng: np.random.Generator) -> None:
    parameters, y = problem(2, 5, 3, 2, 0.3, rng)
    filtered = square_root.filter(parameters, y)
    assert filtered.factor is not None
    np.testing.assert_array_equal(filtered.factor, np.tril(filtered.factor))
    np.testing.assert_allclose(filtered.factor @ np.swapaxes(filtered.factor, 2, 3), filtered.cov, atol=1e-14)
    array = rng.standard_normal((2, 4, 3))
    root = square_root.triangular(array)
    np.testing.assert_allclose(root @ np.swapaxes(root, 1, 2), array @ np.swapaxes(array, 1, 2), atol=1e-12)


def test_the_square_root_smoother_needs_the_square_root_filter(rng: np.random.Generator) -> None:
    parameters, y = problem(1, 3, 2, 1, 0.0, rng)
    with pytest.raises(ValueError, match="needs what the square-root filter returned"):
        square_root.smooth(parameters, numpy_.filter(parameters, y))


@pytest.mark.parametrize("form", FORMS)
def test_an_observation_without_noise_of_a_known_state(form: ModuleType, rng: np.random.Generator) -> None:
    parameters, y = problem(2, 3, 2, 1, 0.0, rng)
    nothing = parameters._replace(R=np.zeros((1, 1)), Q=np.zeros((2, 2)), P0=np.zeros((2, 2)))
    with pytest.raises(np.linalg.LinAlgError, match=r"S = .* is not positive definite at step 0 of sequence 0"):
        form.filter(nothing, y)


def elements(T: int, n: int, rng: np.random.Generator) -> parallel.Run:
    def spread() -> Array:
        return np.stack([covariance(n, rng) for _ in range(T)])

    return parallel.Run(rng.standard_normal((T, n, n)), rng.standard_normal((T, n)), spread(), rng.standard_normal((T, n)), spread())


def test_joining_is_associative(rng: np.random.Generator) -> None:
    i, j, k = (elements(4, 3, rng) for _ in range(3))
    for a, b in zip(parallel.join(parallel.join(i, j), k), parallel.join(i, parallel.join(j, k)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 8, 64, 100])
def test_prefixes_are_the_joined_elements_in_2_log_T_sweeps(T: int, rng: np.random.Generator) -> None:
    """x -> G x + g, one after the other: each prefix against a loop; and the work against 2 T."""
    given_elements = parallel.Return(rng.standard_normal((T, 2, 2)) / 2, rng.standard_normal((T, 2)), np.zeros((T, 2, 2)))
    sizes = []

    def join(i: parallel.Return, j: parallel.Return) -> parallel.Return:
        sizes.append(len(i.g))
        return parallel.join_back(i, j)

    found = parallel.prefixes(join, given_elements)
    G, g = np.eye(2), np.zeros(2)
    for t in range(T):
        G, g = G @ given_elements.G[t], G @ given_elements.g[t] + g
        np.testing.assert_allclose(found.G[t], G, atol=1e-12)
        np.testing.assert_allclose(found.g[t], g, atol=1e-12)
    assert sum(sizes) <= 2 * T
    assert len(sizes) <= 2 * np.ceil(np.log2(T))
