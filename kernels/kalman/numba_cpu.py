"""The Kalman filter, smoother and score for CPUs, compiled by Numba. Equation numbers are those of README.md in this folder.

Matrices are small, so all products are scalar loops that stay in cache, and what they need is allocated once per call. Sequences do not
depend on each other: P threads deal them out like cards, and each takes its own through all time steps. A sequence stops at its own end.

A step of the filter takes about 8 n^3 + 6 n^2 p + 6 n p^2 operations, one of the smoother 16 n^3, one of the score 12 n^3. Symmetric
matrices are computed below the diagonal and mirrored.
"""

from __future__ import annotations

import math

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Filtered, Parameters, Score, Smoothed, not_definite, problem

LOG_2PI = math.log(2 * math.pi)


def filter(parameters: Parameters, y: Array, lengths: Array | None = None) -> Filtered:
    """y (N, T, p), NaN where nothing was observed; lengths (N,), None: all of T; all float32 or all float64"""
    q = problem(parameters, y, lengths)
    (N, T, p), n, dtype = y.shape, len(q.A), y.dtype
    predicted_mean, mean = np.zeros((N, T, n), dtype), np.zeros((N, T, n), dtype)
    predicted_cov, cov = np.zeros((N, T, n, n), dtype), np.zeros((N, T, n, n), dtype)
    log_likelihoods = np.zeros((N, T), dtype)
    failed = np.full(N, -1)  # (N,) the step at which S had no factor
    P = workers.groups(N, float(q.lengths.sum()) * (8 * n**3 + 6 * n * p * (n + p)))

    def group(g: int) -> None:
        _filter(g, P, *q, predicted_mean, predicted_cov, mean, cov, log_likelihoods, failed)

    workers.share(group, P)
    if (failed >= 0).any():
        sequence = int(np.flatnonzero(failed >= 0)[0])
        raise not_definite(int(failed[sequence]), sequence)
    return Filtered(predicted_mean, predicted_cov, mean, cov, log_likelihoods, q.lengths)


def smooth(parameters: Parameters, filtered: Filtered) -> Smoothed:
    """What `filter` returned for the same parameters"""
    A, Q = np.ascontiguousarray(parameters.A), np.ascontiguousarray(parameters.Q)
    N, _, n = filtered.mean.shape
    mean, cov = filtered.mean.copy(), filtered.cov.copy()
    cross = np.zeros_like(cov)
    P = workers.groups(N, float(filtered.lengths.sum()) * 16 * n**3)

    def group(g: int) -> None:
        _smooth(g, P, A, Q, filtered.predicted_mean, filtered.predicted_cov, filtered.cov, filtered.lengths, mean, cov, cross)

    workers.share(group, P)
    return Smoothed(mean, cov, cross)


def score(parameters: Parameters, y: Array, filtered: Filtered, weights: Array) -> Score:
    """The gradient of sum_n weights_n ln p(x of sequence n); `filtered` is what `filter` returned, weights (N,)"""
    q = problem(parameters, y, filtered.lengths)
    (N, T, p), n, dtype = y.shape, len(q.A), y.dtype
    dA, dQ, dP0 = np.zeros((N, n, n), dtype), np.zeros((N, n, n), dtype), np.zeros((N, n, n), dtype)
    dC, dR = np.zeros((N, p, n), dtype), np.zeros((N, p, p), dtype)
    db, dd, dm0 = np.zeros((N, T, n), dtype), np.zeros((N, T, p), dtype), np.zeros((N, n), dtype)
    P = workers.groups(N, float(q.lengths.sum()) * 12 * n**3)

    def group(g: int) -> None:
        moments = filtered.predicted_mean, filtered.predicted_cov, filtered.mean, filtered.cov
        _score(g, P, q.A, q.C, q.R, q.d, q.y, q.seen, q.lengths, *moments, dA, dQ, dC, dR, db, dd, dm0, dP0)

    workers.share(group, P)
    dA, dQ, dC, dR = (np.tensordot(weights, x, 1) for x in (dA, dQ, dC, dR))
    db, dd, dP0 = weights[:, None, None] * db, weights[:, None, None] * dd, weights[:, None, None] * dP0
    return Score(dA, dQ, dC, dR, db, dd, weights[:, None] * dm0, dP0)


@compiled(error_model="numpy", fastmath={"contract"})
def _filter(
    g: int,
    groups: int,
    A: Array,
    Q: Array,
    C: Array,
    R: Array,
    b: Array,
    d: Array,
    m0: Array,
    P0: Array,
    y: Array,
    seen: Array,
    lengths: Array,
    predicted_mean: Array,
    predicted_cov: Array,
    mean: Array,
    cov: Array,
    log_likelihoods: Array,
    failed: Array,
) -> None:
    """The sequences g, g + groups, ... through all steps; the arrays are those of `Problem` and `Filtered`, failed (N,)."""
    (N, _, p), n = y.shape, len(A)
    W, I_KC = np.empty((n, n), A.dtype), np.empty((n, n), A.dtype)
    v, inverse = np.empty(p, A.dtype), np.empty(p, A.dtype)
    CP, KT, K, KR = np.empty((p, n), A.dtype), np.empty((p, n), A.dtype), np.empty((n, p), A.dtype), np.empty((n, p), A.dtype)
    S, L = np.empty((p, p), A.dtype), np.empty((p, p), A.dtype)
    for s in range(g, N, groups):
        for t in range(lengths[s]):
            m, P = predicted_mean[s, t], predicted_cov[s, t]
            if t == 0:
                for i in range(n):
                    m[i] = m0[s, i]
                copy(P0[s], P)  # (1.1)
            else:
                apply(A, mean[s, t - 1], m)
                for i in range(n):
                    m[i] += b[s, t, i]  # (2.1)
                multiply(A, cov[s, t - 1], W)
                copy(Q, P)
                add_sandwich(W, A, P)  # (2.2)
            observed = innovation(C, R, d[s, t], y[s, t], seen[s, t], m, P, CP, KT, S, v, L, inverse)  # (2.3) to (2.5)
            if observed < 0:
                failed[s] = t
                break
            transpose(KT, K)
            apply(K, v, mean[s, t])
            for i in range(n):
                mean[s, t, i] += m[i]  # (2.6)
            multiply(K, C, I_KC)
            one_minus(I_KC)
            multiply(I_KC, P, W)
            clear(cov[s, t])
            add_sandwich(W, I_KC, cov[s, t])
            multiply(K, R, KR)
            add_sandwich(KR, K, cov[s, t])  # (2.7)
            total = observed * A.dtype.type(LOG_2PI)
            for i in range(p):
                white = v[i]
                for j in range(i):
                    white -= L[i, j] * v[j]
                v[i] = white * inverse[i]  # L^-1 v, so v^T S^-1 v = |L^-1 v|^2
                total += v[i] * v[i] - 2 * np.log(inverse[i])
            log_likelihoods[s, t] = -total / 2  # (2.8)


@compiled(error_model="numpy", fastmath={"contract"})
def _smooth(
    g: int,
    groups: int,
    A: Array,
    Q: Array,
    predicted_mean: Array,
    predicted_cov: Array,
    filtered_cov: Array,
    lengths: Array,
    mean: Array,
    cov: Array,
    cross: Array,
) -> None:
    """The sequences g, g + groups, ... back through all steps; mean and cov hold what `filter` left, and end as what is smoothed."""
    N, n = len(lengths), len(A)
    JT, J, I_JA, W = np.empty((n, n), A.dtype), np.empty((n, n), A.dtype), np.empty((n, n), A.dtype), np.empty((n, n), A.dtype)
    L, inverse, step = np.empty((n, n), A.dtype), np.empty(n, A.dtype), np.empty(n, A.dtype)
    rounding = n * np.finfo(A.dtype).eps
    for s in range(g, N, groups):
        for t in range(lengths[s] - 2, -1, -1):
            P = filtered_cov[s, t]
            multiply(A, P, JT)
            factor(predicted_cov[s, t + 1], L, inverse, rounding)
            solve(L, inverse, JT)
            transpose(JT, J)  # (3.1)
            for i in range(n):
                step[i] = mean[s, t + 1, i] - predicted_mean[s, t + 1, i]
            for i in range(n):
                for j in range(n):
                    mean[s, t, i] += J[i, j] * step[j]  # (3.2)
            multiply(J, A, I_JA)
            one_minus(I_JA)
            multiply(I_JA, P, W)
            clear(cov[s, t])
            add_sandwich(W, I_JA, cov[s, t])
            for i in range(n):
                for j in range(n):
                    JT[i, j] = Q[i, j] + cov[s, t + 1, i, j]
            multiply(J, JT, W)
            add_sandwich(W, J, cov[s, t])  # (3.3)
            transpose(J, JT)
            multiply(cov[s, t + 1], JT, cross[s, t + 1])  # (3.4)


@compiled(error_model="numpy", fastmath={"contract"})
def _score(
    g: int,
    groups: int,
    A: Array,
    C: Array,
    R: Array,
    d: Array,
    y: Array,
    seen: Array,
    lengths: Array,
    predicted_mean: Array,
    predicted_cov: Array,
    mean: Array,
    cov: Array,
    dA: Array,
    dQ: Array,
    dC: Array,
    dR: Array,
    db: Array,
    dd: Array,
    dm0: Array,
    dP0: Array,
) -> None:
    """The sequences g, g + groups, ... back through all steps; the last eight arrays, each (N, ...), are added to and start at zero."""
    (N, _, p), n = y.shape, len(A)
    G, W, X, AT = np.empty((n, n), A.dtype), np.empty((n, n), A.dtype), np.empty((n, n), A.dtype), np.empty((n, n), A.dtype)
    r, z, r_before = np.empty(n, A.dtype), np.empty(n, A.dtype), np.empty(n, A.dtype)
    v, e, inverse = np.empty(p, A.dtype), np.empty(p, A.dtype), np.empty(p, A.dtype)
    CP, KT, K, CT = np.empty((p, n), A.dtype), np.empty((p, n), A.dtype), np.empty((n, p), A.dtype), np.empty((n, p), A.dtype)
    KTG, CTS = np.empty((p, n), A.dtype), np.empty((n, p), A.dtype)
    S, L, S_inv = np.empty((p, p), A.dtype), np.empty((p, p), A.dtype), np.empty((p, p), A.dtype)
    half = A.dtype.type(0.5)
    transpose(A, AT)
    transpose(C, CT)
    for s in range(g, N, groups):
        for i in range(n):
            r[i] = 0
        clear(G)  # (4.1)
        for t in range(lengths[s] - 1, -1, -1):
            innovation(C, R, d[s, t], y[s, t], seen[s, t], predicted_mean[s, t], predicted_cov[s, t], CP, KT, S, v, L, inverse)
            transpose(KT, K)
            clear(S_inv)
            for i in range(p):
                S_inv[i, i] = seen[s, t, i]
            solve(L, inverse, S_inv)
            apply(S_inv, v, e)
            for i in range(p):
                for j in range(n):
                    e[i] -= KT[i, j] * r[j]  # (4.2)
                dd[s, t, i] = e[i]  # (4.6)
            multiply(KT, G, KTG)
            multiply(KTG, cov[s, t], CP)
            apply(cov[s, t], r, z)
            for i in range(p):
                for j in range(n):
                    dC[s, i, j] += e[i] * (mean[s, t, j] + z[j]) - KT[i, j] + CP[i, j]  # (4.4)
            copy(S_inv, S)
            add_sandwich(KTG, KT, S)  # (4.3) E
            for i in range(p):
                for j in range(p):
                    dR[s, i, j] += half * (e[i] * e[j] - S[i, j])  # (4.5)
            for i in range(p):
                for j in range(n):
                    r[j] += C[i, j] * e[i]  # (4.7)
            multiply(K, C, X)
            one_minus(X)
            transpose(X, W)  # (I - K C)^T
            multiply(W, G, X)
            clear(G)
            add_sandwich(X, W, G)
            multiply(CT, S_inv, CTS)
            add_sandwich(CTS, CT, G)  # (4.8)
            dV, dv = (dQ[s], db[s, t]) if t > 0 else (dP0[s], dm0[s])
            for i in range(n):
                for j in range(n):
                    dV[i, j] += half * (r[i] * r[j] - G[i, j])  # (4.9)
                dv[i] = r[i]  # (4.10)
            if t == 0:
                break
            apply(AT, r, r_before)  # (4.11)
            apply(cov[s, t - 1], r_before, z)
            multiply(G, A, X)
            multiply(X, cov[s, t - 1], W)
            for i in range(n):
                for j in range(n):
                    dA[s, i, j] += r[i] * (mean[s, t - 1, j] + z[j]) - W[i, j]  # (4.12)
            for i in range(n):
                r[i] = r_before[i]
            multiply(AT, G, W)
            clear(G)
            add_sandwich(W, AT, G)  # (4.13)


@compiled(error_model="numpy", fastmath={"contract"})
def innovation(
    C: Array,
    R: Array,
    d: Array,
    y: Array,
    seen: Array,
    m: Array,
    P: Array,
    CP: Array,
    KT: Array,
    S: Array,
    v: Array,
    L: Array,
    inverse: Array,
) -> int:
    """Fill v (p,), S, L and K^T (p, n) of one step; how many components were observed, or -1 where S has no factor. CP is scratch."""
    p, n = C.shape
    apply(C, m, v)
    multiply(C, P, CP)
    copy(R, S)
    add_sandwich(CP, C, S)
    copy(CP, KT)
    observed = 0
    for i in range(p):
        if seen[i]:
            v[i] = y[i] - v[i] - d[i]  # (2.3)
            observed += 1
        else:
            v[i] = 0
            for j in range(n):
                KT[i, j] = 0
            for j in range(p):
                S[i, j] = 0
                S[j, i] = 0
            S[i, i] = 1  # (2.4)
    factor(S, L, inverse, 0.0)
    for i in range(p):
        if not inverse[i] > 0:
            return -1
    solve(L, inverse, KT)  # (2.5)
    return observed


@compiled(error_model="numpy", fastmath={"contract"})
def factor(a: Array, L: Array, inverse: Array, rounding: float) -> None:
    """L L^T = a (n, n) positive semi-definite, and inverse (n,) = 1 / L_jj; zero where a pivot is no larger than `rounding` times a_jj."""
    n = len(a)
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
        if pivot > rounding * a[j, j] and pivot > 0:
            inverse[j] = 1 / np.sqrt(pivot)
        else:
            inverse[j] = 0
        L[j, j] = pivot * inverse[j]
        for i in range(j + 1, n):
            x = a[i, j]
            for k in range(j):
                x -= L[i, k] * L[j, k]
            L[i, j] = x * inverse[j]


@compiled(error_model="numpy", fastmath={"contract"})
def solve(L: Array, inverse: Array, x: Array) -> None:
    """x (n, m) becomes (L L^T)^-1 x; an unknown whose pivot is zero is zero."""
    n, m = x.shape
    for i in range(n):  # L w = x
        for k in range(i):
            for j in range(m):
                x[i, j] -= L[i, k] * x[k, j]
        for j in range(m):
            x[i, j] *= inverse[i]
    for i in range(n - 1, -1, -1):  # L^T x = w
        for k in range(i + 1, n):
            for j in range(m):
                x[i, j] -= L[k, i] * x[k, j]
        for j in range(m):
            x[i, j] *= inverse[i]


@compiled(error_model="numpy", fastmath={"contract"})
def multiply(a: Array, b: Array, out: Array) -> None:
    """out (n, m) = a (n, k) b (k, m)"""
    (n, m), inner = out.shape, len(b)
    for i in range(n):
        for j in range(m):
            out[i, j] = a[i, 0] * b[0, j]
        for k in range(1, inner):
            for j in range(m):
                out[i, j] += a[i, k] * b[k, j]


@compiled(error_model="numpy", fastmath={"contract"})
def add_sandwich(a: Array, b: Array, out: Array) -> None:
    """out (n, n) += a b^T, which is symmetric; a and b (n, k)"""
    n, inner = a.shape
    for i in range(n):
        for j in range(i + 1):
            x = out[i, j]
            for k in range(inner):
                x += a[i, k] * b[j, k]
            out[i, j] = x
            out[j, i] = x


@compiled(error_model="numpy", fastmath={"contract"})
def apply(a: Array, x: Array, out: Array) -> None:
    """out (n,) = a (n, k) x (k,)"""
    for i in range(len(a)):
        total = a[i, 0] * x[0]
        for k in range(1, len(x)):
            total += a[i, k] * x[k]
        out[i] = total


@compiled(error_model="numpy", fastmath={"contract"})
def transpose(a: Array, out: Array) -> None:
    """out (m, n) = a (n, m)^T"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j, i] = a[i, j]


@compiled(error_model="numpy", fastmath={"contract"})
def one_minus(a: Array) -> None:
    """a (n, n) becomes I - a"""
    for i in range(len(a)):
        for j in range(len(a)):
            a[i, j] = -a[i, j]
        a[i, i] += 1


@compiled(error_model="numpy", fastmath={"contract"})
def copy(a: Array, out: Array) -> None:
    """out = a (n, m)"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j]


@compiled(error_model="numpy", fastmath={"contract"})
def clear(out: Array) -> None:
    """out (n, m) = 0"""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = 0
