"""The Kalman filter, smoother and score in array operations, line by line: the reference and the fallback. Equations are README.md's.

All sequences go through a step together; those that have ended are left out. The lines take arrays of NumPy and of a device (see cupy_.py).
"""

from __future__ import annotations

import math

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Filtered, Parameters, Problem, Score, Smoothed, not_definite, problem, running
from minirnn.kernels.modules import array_module, cholesky


def filter(parameters: Parameters, y: Array, lengths: Array | None = None) -> Filtered:
    """y (N, T, p), NaN where nothing was observed; lengths (N,), None: all of T"""
    q, xp = problem(parameters, y, lengths), array_module(y)
    (N, T, _), n = y.shape, len(q.A)
    predicted_mean, mean = xp.zeros((2, N, T, n), y.dtype)
    predicted_cov, cov = xp.zeros((2, N, T, n, n), y.dtype)
    log_likelihoods = xp.zeros((N, T), y.dtype)

    for t, run in enumerate(running(q.lengths, T, xp)):  # (k,) the sequences that have a step t
        if t == 0:
            m, P = q.m0[run], q.P0[run]  # (k, n), (k, n, n)                                       (1.1)
        else:
            m = _apply(q.A, mean[run, t - 1]) + q.b[run, t]  # (k, n)                             (2.1)
            P = q.A @ cov[run, t - 1] @ q.A.T + q.Q  # (k, n, n)                                  (2.2)
        predicted_mean[run, t], predicted_cov[run, t] = m, P
        v, _, L, K = _innovation(q, run, t, m, P)  # (k, p), (k, p, p), (k, n, p)                 (2.3) to (2.5)
        mean[run, t] = m + _apply(K, v)  # (k, n)                                                 (2.6)
        I_KC = xp.eye(n, dtype=y.dtype) - K @ q.C  # (k, n, n)
        cov[run, t] = _symmetric(I_KC @ P @ _T(I_KC) + K @ q.R @ _T(K))  # (k, n, n)              (2.7)
        white = xp.linalg.solve(L, v[..., None])[..., 0]  # (k, p) L^-1 v, so v^T S^-1 v = |white|^2
        log_det = 2 * xp.log(L.diagonal(0, 1, 2)).sum(1)  # (k,)
        log_likelihoods[run, t] = -0.5 * ((white**2).sum(1) + log_det + q.seen[run, t].sum(1) * math.log(2 * math.pi))  # (2.8)

    return Filtered(predicted_mean, predicted_cov, mean, cov, log_likelihoods, q.lengths)


def smooth(parameters: Parameters, filtered: Filtered) -> Smoothed:
    """What `filter` returned for the same parameters"""
    A, Q, xp = parameters.A, parameters.Q, array_module(filtered.mean)
    T, n = filtered.mean.shape[1:]
    mean, cov = filtered.mean.copy(), filtered.cov.copy()  # (N, T, n), (N, T, n, n); right at each sequence's last step
    cross = xp.zeros_like(cov)

    ahead_of = running(filtered.lengths, T, xp)
    for t in range(T - 2, -1, -1):
        run = ahead_of[t + 1]  # (k,)
        P, ahead = filtered.cov[run, t], filtered.predicted_cov[run, t + 1]  # (k, n, n) each
        J = _T(solve_semidefinite(ahead, A @ P))  # (k, n, n)                                     (3.1)
        mean[run, t] += _apply(J, mean[run, t + 1] - filtered.predicted_mean[run, t + 1])  #      (3.2)
        I_JA = xp.eye(n, dtype=P.dtype) - J @ A
        cov[run, t] = _symmetric(I_JA @ P @ _T(I_JA) + J @ (Q + cov[run, t + 1]) @ _T(J))  #      (3.3)
        cross[run, t + 1] = cov[run, t + 1] @ _T(J)  # (k, n, n)                                  (3.4)

    return Smoothed(mean, cov, cross)


def score(parameters: Parameters, y: Array, filtered: Filtered, weights: Array) -> Score:
    """The gradient of sum_n weights_n ln p(x of sequence n); `filtered` is what `filter` returned, weights (N,)"""
    q, xp = problem(parameters, y, filtered.lengths), array_module(y)
    (N, T, p), n = y.shape, len(q.A)
    dA, dQ, dC, dR = (xp.zeros_like(x) for x in (q.A, q.Q, q.C, q.R))
    db, dd, dP0 = xp.zeros((N, T, n), y.dtype), xp.zeros((N, T, p), y.dtype), xp.zeros((N, n, n), y.dtype)
    r, G = xp.zeros((N, n), y.dtype), xp.zeros((N, n, n), y.dtype)  # what the future says of the filtered state    (4.1)

    for t, run in reversed(list(enumerate(running(q.lengths, T, xp)))):
        w = weights[run, None]  # (k, 1)
        m, P = filtered.predicted_mean[run, t], filtered.predicted_cov[run, t]
        v, S, _, K = _innovation(q, run, t, m, P)
        seen = q.seen[run, t].astype(y.dtype)  # (k, p)
        S_inv = xp.linalg.inv(S) * seen[:, :, None] * seen[:, None, :]  # (k, p, p)
        e = _apply(S_inv, v) - _apply(_T(K), r[run])  # (k, p)                                    (4.2)
        E = S_inv + _T(K) @ G[run] @ K  # (k, p, p)                                               (4.3)
        z = filtered.mean[run, t] + _apply(filtered.cov[run, t], r[run])  # (k, n) the smoothed mean
        I_GP = xp.eye(n, dtype=y.dtype) - G[run] @ filtered.cov[run, t]
        dC += (w[..., None] * (_outer(e, z) - _T(K) @ I_GP)).sum(0)  # (p, n)                     (4.4)
        dR += 0.5 * (w[..., None] * (_outer(e, e) - E)).sum(0)  # (p, p)                          (4.5)
        dd[run, t] = w * e  # (k, p)                                                              (4.6)
        I_KC = xp.eye(n, dtype=y.dtype) - K @ q.C
        r[run] += _apply(q.C.T, e)  # (k, n)                                                      (4.7)
        G[run] = _symmetric(q.C.T @ S_inv @ q.C + _T(I_KC) @ G[run] @ I_KC)  # (k, n, n)          (4.8)
        if t == 0:
            dP0 = 0.5 * weights[:, None, None] * (_outer(r, r) - G)  # (N, n, n)                  (4.9)
            break
        before, P = filtered.mean[run, t - 1], filtered.cov[run, t - 1]
        dQ += 0.5 * (w[..., None] * (_outer(r[run], r[run]) - G[run])).sum(0)  # (n, n)           (4.9)
        db[run, t] = w * r[run]  # (k, n)                                                         (4.10)
        AP = q.A @ P  # (k, n, n)
        r_before = _apply(q.A.T, r[run])  # (k, n)                                                (4.11)
        z = before + _apply(P, r_before)  # (k, n) the smoothed mean of the step before
        dA += (w[..., None] * (_outer(r[run], z) - G[run] @ AP)).sum(0)  # (n, n)                 (4.12)
        r[run], G[run] = r_before, q.A.T @ G[run] @ q.A  #                                        (4.11), (4.13)

    return Score(dA, dQ, dC, dR, db, dd, weights[:, None] * r, dP0)  # dm0:                       (4.10)


def _innovation(q: Problem, run: Array, t: int, m: Array, P: Array) -> tuple[Array, Array, Array, Array]:
    """v (k, p), S (k, p, p), its Cholesky factor and the gain K (k, n, p) of the sequences `run` at step t; m (k, n), P (k, n, n)."""
    xp = array_module(P)
    seen = q.seen[run, t].astype(P.dtype)  # (k, p) the diagonal of M
    v = seen * (q.y[run, t] - _apply(q.C, m) - q.d[run, t])  # (k, p)                             (2.3)
    CP = seen[:, :, None] * (q.C @ P)  # (k, p, n)
    S = seen[:, :, None] * seen[:, None, :] * (q.C @ P @ q.C.T + q.R)  # (k, p, p)
    S += (1 - seen)[:, :, None] * xp.eye(len(q.C), dtype=P.dtype)  #                              (2.4)
    try:
        L = cholesky(S)
    except np.linalg.LinAlgError:
        raise not_definite(t, int(run[np.argmin(np.linalg.eigvalsh(S)[:, 0])])) from None
    return v, S, L, _T(xp.linalg.solve(S, CP))  #                                                 (2.5)


def solve_semidefinite(a: Array, b: Array) -> Array:
    """A solution x (k, n, m) of a x = b, for a (k, n, n) symmetric positive semi-definite and b (k, n, m) in its range.

    Cholesky's method, in which a pivot that is lost in rounding is a direction in which nothing varies: its unknown is zero.
    """
    xp = array_module(a)
    n, tolerance = a.shape[-1], float(a.shape[-1] * np.finfo(a.dtype).eps)
    L = xp.zeros_like(a)  # (k, n, n) a = L L^T
    inverse = xp.zeros(a.shape[:-1], a.dtype)  # (k, n) 1 / L_jj, zero where there is no pivot
    for j in range(n):
        column = a[:, j:, j] - (L[:, j:, :j] @ L[:, j, :j, None])[..., 0]  # (k, n - j)
        pivot = column[:, 0]
        good = pivot > tolerance * a[:, j, j]
        inverse[:, j] = xp.where(good, 1 / xp.sqrt(xp.where(good, pivot, 1)), 0)
        L[:, j:, j] = column * inverse[:, j, None]
    x = xp.zeros_like(b)
    for j in range(n):  # L w = b
        x[:, j] = (b[:, j] - (L[:, j, None, :j] @ x[:, :j])[:, 0]) * inverse[:, j, None]
    for j in range(n - 1, -1, -1):  # L^T x = w
        x[:, j] = (x[:, j] - (L[:, None, j + 1 :, j] @ x[:, j + 1 :])[:, 0]) * inverse[:, j, None]
    return x


def _apply(a: Array, x: Array) -> Array:
    """a (n, m) or (k, n, m) times the vectors x (k, m): (k, n)"""
    return (a @ x[..., None])[..., 0]


def _outer(a: Array, b: Array) -> Array:
    """a (k, n), b (k, m): (k, n, m)"""
    return a[:, :, None] * b[:, None, :]


def _T(a: Array) -> Array:
    return a.swapaxes(-1, -2)


def _symmetric(a: Array) -> Array:
    return 0.5 * (a + _T(a))
