"""The Kalman filter and smoother for all steps at once: both are prefix sums over an associative operation.

An element a = (A, c, C, e, J) stands for a run of steps: how its last state follows from the state before it, and what its
observations say of that state,

    p(z_last | x of the run, z_before) = N(A z_before + c, C),      p(x of the run | z_before) ~ N^-1(z_before; e, J)

with e and J in information form. One step, with S = C Q C^T + R and K = Q C^T S^-1 (C and R the model's, missing rows taken out):

    (6.1)  A = (I - K C) A_model,   c = b + K (x - C b - d),   C = (I - K C) Q
    (6.2)  e = A_model^T C^T S^-1 (x - C b - d),   J = A_model^T C^T S^-1 C A_model
    (6.3)  the first step: A = 0, c and C the mean and covariance of z_1 given x_1, e = 0, J = 0

Two runs i, j one after the other are the run

    (6.4)  A = A_j F A_i,   c = A_j F (c_i + C_i e_j) + c_j,   C = A_j F C_i A_j^T + C_j        F = (I + C_i J_j)^-1
    (6.5)  e = (F A_i)^T (e_j - J_j c_i) + e_i,   J = (F A_i)^T J_j A_i + J_i

and the run of the steps 1..t has c = E[z_t | x_<=t], C = Cov[z_t | x_<=t]: the filter. For the smoother an element (G, g, L) stands
for p(z_first of the run | z_after, x) = N(G z_after + g, L), with the gain G = J_t of (3.1):

    (6.6)  G = J_t,   g = m_t - J_t (A m_t + b_{t+1}),   L = P_t - J_t A P_t;   the last step: G = 0, g = m_T, L = P_T
    (6.7)  of i and then j:  G = G_i G_j,   g = G_i g_j + g_i,   L = G_i L_j G_i^T + L_i

Prefix sums of T elements: join neighbours, T/2 operations; find the prefix sums of these T/2 elements in the same way; what lies between
them is one more operation each, T/2. In all 2 T operations, in 2 log2 T sweeps that are each a few NumPy calls, where a loop
makes T steps of a dozen calls. One operation costs some 12 products or divisions of n x n matrices, where a step of the sequential filter
costs about 8 products: three times the arithmetic, which pays where sweeps are what counts (NumPy, few sequences, long ones) and not
against a compiled loop. Unlike the sequential forms it needs S = C Q C^T + R to be positive definite without help of the state's variance.

Source: Särkkä and García-Fernández, *Temporal parallelization of Bayesian smoothers* (2021), lemmas 7 to 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Filtered, Parameters, Problem, Smoothed, not_definite, problem
from minirnn.kernels.kalman.numpy_ import solve_semidefinite


class Run(NamedTuple):
    """Some steps one after the other, as the filter sees them; k stands for any leading axes."""

    A: Array  # (k, n, n)
    c: Array  # (k, n)
    C: Array  # (k, n, n)
    e: Array  # (k, n)
    J: Array  # (k, n, n)


class Return(NamedTuple):
    """Some steps one after the other, as the smoother sees them."""

    G: Array  # (k, n, n)
    g: Array  # (k, n)
    L: Array  # (k, n, n)


E = TypeVar("E", Run, Return)


def filter(parameters: Parameters, y: Array, lengths: Array | None = None) -> Filtered:
    """y (N, T, p), NaN where nothing was observed; lengths (N,), None: all of T"""
    q = problem(parameters, y, lengths)
    T = y.shape[1]
    first = _Innovation(q, slice(0, 1), q.m0[:, None], q.P0[:, None])  # of the first step, for (6.3)
    first_mean = q.m0[:, None] + _apply(first.K, first.v)  # (N, 1, n)
    first_cov = _symmetric(first.remaining @ q.P0[:, None])  # (N, 1, n, n)
    run = prefixes(join, Run(*(np.swapaxes(part, 0, 1) for part in _elements(q, first_mean, first_cov))))
    mean, cov = (np.ascontiguousarray(np.swapaxes(part, 0, 1)) for part in (run.c, run.C))  # (N, T, n), (N, T, n, n)

    predicted_mean, predicted_cov = np.empty_like(mean), np.empty_like(cov)
    predicted_mean[:, 0], predicted_cov[:, 0] = q.m0, q.P0
    predicted_mean[:, 1:] = _apply(q.A, mean[:, :-1]) + q.b[:, 1:]  #                             (2.1)
    predicted_cov[:, 1:] = q.A @ cov[:, :-1] @ q.A.T + q.Q  #                                     (2.2)
    found = _Innovation(q, slice(0, T), predicted_mean, predicted_cov)
    log_det = 2 * np.log(np.diagonal(found.L, axis1=2, axis2=3)).sum(2)  # (N, T)
    white = np.linalg.solve(found.L, found.v[..., None])[..., 0]  # (N, T, p)
    log_likelihoods = -0.5 * ((white**2).sum(2) + log_det + q.seen.sum(2) * math.log(2 * math.pi))  # (N, T)     (2.8)

    running = np.arange(T) < q.lengths[:, None]  # (N, T)
    for part in (predicted_mean, predicted_cov, mean, cov, log_likelihoods):
        part[~running] = 0
    return Filtered(predicted_mean, predicted_cov, mean, cov, log_likelihoods.astype(y.dtype), q.lengths)


def smooth(parameters: Parameters, filtered: Filtered) -> Smoothed:
    """What a `filter` of any form returned for the same parameters"""
    A, m, P = parameters.A, filtered.mean, filtered.cov  # (n, n), (N, T, n), (N, T, n, n)
    (T, n), last = m.shape[1:], filtered.lengths - 1
    AP = A @ P[:, :-1]  # (N, T - 1, n, n)
    J = np.zeros_like(P)  # zero at each last step, and after it
    flat = (-1, n, n)
    J[:, :-1] = _T(solve_semidefinite(filtered.predicted_cov[:, 1:].reshape(flat), AP.reshape(flat))).reshape(AP.shape)  # (3.1)
    J[np.arange(T) >= last[:, None]] = 0
    g, L = m.copy(), P.copy()
    g[:, :-1] -= _apply(J[:, :-1], filtered.predicted_mean[:, 1:])  #                             (6.6)
    L[:, :-1] -= J[:, :-1] @ AP
    backwards = Return(*(np.swapaxes(part, 0, 1)[::-1] for part in (J, g, L)))
    found = prefixes(lambda later, earlier: join_back(earlier, later), backwards)
    mean, cov = np.swapaxes(found.g[::-1], 0, 1), _symmetric(np.swapaxes(found.L[::-1], 0, 1))
    cross = np.zeros_like(P)
    cross[:, 1:] = cov[:, 1:] @ _T(J[:, :-1])  # (N, T - 1, n, n)                                 (3.4)
    return Smoothed(np.ascontiguousarray(mean), cov, cross)


def join(i: Run, j: Run) -> Run:
    """The steps of i, and then those of j."""
    n = i.A.shape[-1]
    ahead = np.concatenate([i.A, i.C, (i.c + _apply(i.C, j.e))[..., None]], axis=-1)  # (k, n, 2n + 1)
    solved = np.linalg.solve(np.eye(n, dtype=i.A.dtype) + i.C @ j.J, ahead)  # F times that
    FA, FC, Fc = solved[..., :n], solved[..., n : 2 * n], solved[..., 2 * n]
    return Run(
        j.A @ FA,
        _apply(j.A, Fc) + j.c,
        _symmetric(j.A @ FC @ _T(j.A) + j.C),  #                                                  (6.4)
        _apply(_T(FA), j.e - _apply(j.J, i.c)) + i.e,
        _symmetric(_T(FA) @ j.J @ i.A + i.J),  #                                                  (6.5)
    )


def join_back(i: Return, j: Return) -> Return:
    """The steps of i, and then those of j."""
    return Return(i.G @ j.G, _apply(i.G, j.g) + i.g, i.G @ j.L @ _T(i.G) + i.L)  #                (6.7)


def prefixes(join: Callable[[E, E], E], elements: E) -> E:
    """Element t of the result is the first t + 1 elements joined; `join` is associative, and works along the first axis."""
    T = len(elements[0])
    if T == 1:
        return elements
    kind = type(elements)
    odd = prefixes(join, join(kind(*(part[: T - 1 : 2] for part in elements)), kind(*(part[1::2] for part in elements))))  # 1, 3, ...
    result = kind(*(np.empty(part.shape, part.dtype) for part in elements))
    even = None
    if T > 2:
        even = join(kind(*(part[: (T - 1) // 2] for part in odd)), kind(*(part[2::2] for part in elements)))  # 2, 4, ...
    for k, part in enumerate(result):
        part[0], part[1::2] = elements[k][0], odd[k]
        if even is not None:
            part[2::2] = even[k]
    return result


def _elements(q: Problem, first_mean: Array, first_cov: Array) -> Run:
    """(6.1) to (6.3), each part (N, T, ...); steps after a sequence's end are the run of no steps, which changes nothing."""
    (N, T, _), n = q.y.shape, len(q.A)
    one = np.eye(n, dtype=q.A.dtype)
    found = _Innovation(q, slice(0, T), q.b, q.Q)
    SC = np.linalg.solve(found.S, found.C)  # (N, T, p, n) S^-1 C
    A, C = found.remaining @ q.A, _symmetric(found.remaining @ q.Q)
    c = q.b + _apply(found.K, found.v)
    e = _apply(_T(SC @ q.A), found.v)
    J = _symmetric(q.A.T @ _T(found.C) @ SC @ q.A)
    run = Run(*(np.broadcast_to(part, (N, T, *part.shape[2:])).copy() for part in (A, c, C, e, J)))
    for part, value in zip(run, (0, first_mean[:, 0], first_cov[:, 0], 0, 0), strict=True):
        part[:, 0] = value
    ended = np.arange(T) >= q.lengths[:, None]  # (N, T)
    for part, value in zip(run, (one, 0, 0, 0, 0), strict=True):
        part[ended] = value
    return run


class _Innovation:
    """What a step's observation adds to a state of mean m (N, T, n) and covariance P: (2.3) to (2.5) for many steps at once."""

    def __init__(self, q: Problem, steps: slice, m: Array, P: Array) -> None:
        """`steps` of the problem; P (n, n) or (N, T, n, n). Where nothing is missing and P is one, S, K and C are too: (1, 1, ...)."""
        n, p = len(q.A), len(q.C)
        seen = q.seen[:, steps].astype(P.dtype)  # (N, T, p)
        shared = seen[:1, :1] if seen.all() else seen
        eye = np.eye(p, dtype=P.dtype)
        self.C = shared[..., None] * q.C  # (N, T, p, n)
        self.S = _symmetric(self.C @ P @ _T(self.C) + shared[..., :, None] * shared[..., None, :] * q.R + (1 - shared)[..., None] * eye)
        try:
            self.L = np.linalg.cholesky(self.S)
        except np.linalg.LinAlgError:
            sequence, step = np.unravel_index(np.argmin(np.linalg.eigvalsh(self.S)[..., 0]), self.S.shape[:2])
            raise not_definite(int(step), int(sequence)) from None
        self.K = _T(np.linalg.solve(self.S, self.C @ P))  # (N, T, n, p)
        self.v = seen * (q.y[:, steps] - _apply(q.C, m) - q.d[:, steps])  # (N, T, p)
        self.remaining = np.eye(n, dtype=P.dtype) - self.K @ self.C  # (N, T, n, n) I - K C


def _apply(a: Array, x: Array) -> Array:
    """a (n, m) or (k, n, m) times the vectors x (k, m): (k, n)"""
    return (a @ x[..., None])[..., 0]


def _T(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _symmetric(a: Array) -> Array:
    return 0.5 * (a + _T(a))
