"""The dense joint Gaussian of all states and observations of one sequence: what every form of the Kalman filter must agree with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minirnn.kernels.kalman.contract import Parameters

Array = np.ndarray[Any, Any]


class Dense(NamedTuple):
    mean: Array  # (T, n)        E[z_t | what is observed]
    cov: Array  # (T, n, T, n)  Cov[z_s, z_t | what is observed]
    log_likelihood: float


def dense(parameters: Parameters, y: Array) -> Dense:
    """Conditions the joint Gaussian of z (T n numbers) and x (T p) on what is there of y (T, p)."""
    (T, p), n = y.shape, len(parameters.A)
    b, d = np.broadcast_to(parameters.b, (T, n)), np.broadcast_to(parameters.d, (T, p))
    reach = np.zeros((T, n, T, n))  # z_t = sum_s reach[t, :, s] (noise_s + offset_s), noise_1 the first state's
    for t in range(T):
        reach[t, :, t] = np.eye(n)
        for s in range(t):
            reach[t, :, s] = parameters.A @ reach[t - 1, :, s]
    L = reach.reshape(T * n, T * n)
    noise = np.zeros((T, n, T, n))
    for t in range(T):
        noise[t, :, t] = parameters.P0 if t == 0 else parameters.Q
    mean = L @ np.concatenate((parameters.m0[None], b[1:])).ravel()
    V = L @ noise.reshape(T * n, T * n) @ L.T
    C = np.kron(np.eye(T), parameters.C)
    seen = ~np.isnan(y).ravel()
    C = C[seen]
    S = C @ V @ C.T + np.kron(np.eye(T), parameters.R)[np.ix_(seen, seen)]
    v = y.ravel()[seen] - C @ mean - d.ravel()[seen]
    gain = np.linalg.solve(S, C @ V).T
    log_likelihood = -0.5 * (v @ np.linalg.solve(S, v) + np.linalg.slogdet(S)[1] + len(v) * np.log(2 * np.pi))
    return Dense((mean + gain @ v).reshape(T, n), (V - gain @ C @ V).reshape(T, n, T, n), float(log_likelihood))


def definite(rng: np.random.Generator, n: int) -> Array:
    factor = rng.standard_normal((n, n + 2))
    return factor @ factor.T / (n + 2) + 0.1 * np.eye(n)


def drawn(rng: np.random.Generator, N: int, T: int, n: int, p: int, missing: float) -> tuple[Parameters, Array]:
    """Random parameters, offsets that change with time and sequence, and observations a share of which is missing."""
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    C = rng.standard_normal((p, n))
    b, d = rng.standard_normal((N, T, n)), rng.standard_normal((N, T, p))
    parameters = Parameters(A, definite(rng, n), C, definite(rng, p), b, d, rng.standard_normal(n), definite(rng, n))
    y = 2 * rng.standard_normal((N, T, p))
    y[rng.random(y.shape) < missing] = np.nan
    return parameters, y


def of_sequence(parameters: Parameters, s: int, length: int) -> Parameters:
    """The parameters of one sequence, offsets cut to its length."""
    return parameters._replace(b=parameters.b[s, :length], d=parameters.d[s, :length])
