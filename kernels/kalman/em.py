"""The maximisation step of expectation-maximisation: the parameters that are best for the smoothed states. Equations (7.x) of README.md.

Both equations of the model are linear regressions, of z_t on (z_{t-1}, u_t, 1) and of x_t on (z_t, u_t, 1), in which the states are known
up to the smoothed moments. Whatever is not learnt keeps its value, and what it explains is taken off first.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Parameters, Smoothed

LEARNABLE = ("A", "F", "b", "Q", "C", "G", "d", "R", "m0", "P0")


class Linear(NamedTuple):
    """z_t = A z_{t-1} + F u_t + b + N(0, Q), x_t = C z_t + G u_t + d + N(0, R), z_1 ~ N(m0, P0), nothing of it changing with time."""

    A: Array  # (n, n)
    F: Array  # (n, k)  k: inputs, may be 0
    b: Array  # (n,)
    Q: Array  # (n, n)
    C: Array  # (p, n)
    G: Array  # (p, k)
    d: Array  # (p,)
    R: Array  # (p, p)
    m0: Array  # (n,)
    P0: Array  # (n, n)

    def parameters(self, u: Array | None = None) -> Parameters:
        """What the filter takes, for inputs u (N, T, k); None: no inputs."""
        b = self.b if u is None else self.b + u @ self.F.T  # (N, T, n)
        d = self.d if u is None else self.d + u @ self.G.T  # (N, T, p)
        return Parameters(self.A, self.Q, self.C, self.R, b, d, self.m0, self.P0)


class Moments(NamedTuple):
    """A regression of M rows y on rows h = (z, u, 1), where y and z are known up to covariances, summed over the rows."""

    y: Array  # (M, q)      E y
    h: Array  # (M, n+k+1)  E h
    yy: Array  # (q, q)     sum of Cov[y]
    yz: Array  # (q, n)     sum of Cov[y, z]
    zz: Array  # (n, n)     sum of Cov[z]


def maximise(old: Linear, y: Array, smoothed: Smoothed, lengths: Array, learn: Collection[str], u: Array | None = None) -> Linear:
    """The parameters named in `learn` at the maximum of E[ln p(x, z)], the others as they are in `old`.

    y (N, T, p) with NaN where nothing was observed; smoothed under `old`; lengths (N,); u (N, T, k).
    """
    new, n = old, len(old.A)
    if not {"A", "F", "b", "Q"}.isdisjoint(learn):
        weight = np.hstack((old.A, old.F, old.b[:, None]))  # (n, n+k+1)
        weight, Q = _regress(_transition(smoothed, lengths, u), weight, _chosen(old, ("A", "F", "b"), learn), old.Q, "Q" in learn)
        new = new._replace(A=weight[:, :n].copy(), F=weight[:, n:-1].copy(), b=weight[:, -1].copy(), Q=Q)
    if not {"C", "G", "d", "R"}.isdisjoint(learn):
        weight = np.hstack((old.C, old.G, old.d[:, None]))  # (p, n+k+1)
        moments = _emission(old, weight, y, smoothed, lengths, u)
        weight, R = _regress(moments, weight, _chosen(old, ("C", "G", "d"), learn), old.R, "R" in learn)
        new = new._replace(C=weight[:, :n].copy(), G=weight[:, n:-1].copy(), d=weight[:, -1].copy(), R=R)
    first = smoothed.mean[:, 0]  # (N, n)
    if "m0" in learn:
        new = new._replace(m0=first.mean(0))  #                                                   (7.6)
    if "P0" in learn:
        off = first - new.m0
        scale = np.square(first).mean(0) + np.diagonal(old.P0)
        new = new._replace(P0=floored(smoothed.cov[:, 0].mean(0) + off.T @ off / len(off), scale))  # (7.7)
    return new


def floored(covariance: Array, scale: Array) -> Array:
    """The symmetric half of a covariance (q, q), its eigenvalues raised to `least` of `scale` (q,), the mean squares of what it is of.

    `least` is eps^(3/4): noise of a millionth of what is seen in float64, and of three thousandths in float32, is as good as none, and
    keeps a model that fits its data exactly from dividing by zero.                                                              (7.5)
    """
    covariance = 0.5 * (covariance + covariance.T)
    least = np.finfo(covariance.dtype).eps ** 0.75
    unit = np.sqrt(np.where(scale > 0, scale, 1)).astype(covariance.dtype)  # (q,)
    values, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
    if values[0] >= least:
        return covariance
    factor = unit[:, None] * vectors * np.sqrt(np.maximum(values, least).astype(covariance.dtype))
    return factor @ factor.T


def _chosen(old: Linear, names: tuple[str, str, str], learn: Collection[str]) -> Array:
    """Which columns of (z, u, 1) are learnt: (n+k+1,) booleans."""
    return np.repeat([name in learn for name in names], [len(old.A), old.F.shape[1], 1])


def _rows(mean: Array, u: Array | None, inside: Array) -> Array:
    """h = (z, u, 1) of the steps `inside` (N, T) booleans: (M, n+k+1)"""
    z = mean[inside]  # (M, n)
    one = np.ones((len(z), 1), z.dtype)
    return np.hstack((z, one) if u is None else (z, u[inside], one))


def _transition(smoothed: Smoothed, lengths: Array, u: Array | None) -> Moments:
    """z_t on (z_{t-1}, u_t, 1), t = 2..T"""
    mean, cov, cross = smoothed
    inside = np.arange(1, mean.shape[1]) < lengths[:, None]  # (N, T-1)
    return Moments(
        mean[:, 1:][inside],
        _rows(mean[:, :-1], None if u is None else u[:, 1:], inside),
        cov[:, 1:][inside].sum(0),
        cross[:, 1:][inside].sum(0),
        cov[:, :-1][inside].sum(0),
    )


def _emission(old: Linear, weight: Array, y: Array, smoothed: Smoothed, lengths: Array, u: Array | None) -> Moments:
    """x_t on (z_t, u_t, 1), over the steps at which anything was observed; what is missing beside it is filled in.    (7.4)"""
    seen = ~np.isnan(y)  # (N, T, p)
    inside = seen.any(-1) & (np.arange(y.shape[1]) < lengths[:, None])  # (N, T)
    h, x, seen = _rows(smoothed.mean, u, inside), y[inside], seen[inside]  # (M, n+k+1), (M, p), (M, p)
    cov = smoothed.cov[inside]  # (M, n, n)
    n, p = len(old.A), len(old.C)
    xx, xz = np.zeros((p, p), y.dtype), np.zeros((p, n), y.dtype)
    for pattern in np.unique(seen[~seen.all(1)], axis=0):  # (p,)
        o, m = np.flatnonzero(pattern), np.flatnonzero(~pattern)
        rows = np.flatnonzero((seen == pattern).all(1))
        gain = np.linalg.solve(old.R[np.ix_(o, o)], old.R[np.ix_(o, m)]).T  # (m, o) R_mo R_oo^-1
        x[np.ix_(rows, m)] = h[rows] @ weight[m].T + (x[np.ix_(rows, o)] - h[rows] @ weight[o].T) @ gain.T
        slope = np.zeros((p, n), y.dtype)  # E[x_m | x_o, z] = .. + slope z
        slope[m] = old.C[m] - gain @ old.C[o]
        V = cov[rows].sum(0)
        xz += slope @ V
        xx += slope @ V @ slope.T
        xx[np.ix_(m, m)] += len(rows) * (old.R[np.ix_(m, m)] - gain @ old.R[np.ix_(o, m)])
    return Moments(x, h, xx, xz, cov.sum(0))


def _regress(moments: Moments, weight: Array, learnt: Array, noise: Array, learn_noise: bool) -> tuple[Array, Array]:
    """The weight (q, n+k+1), its columns `learnt` at their best, and the covariance (q, q) of what is left over."""
    y, h, yy, yz, zz = moments
    n, rows = len(zz), len(y)
    if rows == 0:  # nothing speaks for other values
        return weight, noise
    if learnt.any():
        yh, hh = y.T @ h, h.T @ h  # (q, n+k+1), (n+k+1, n+k+1)
        yh[:, :n] += yz
        hh[:n, :n] += zz
        rest = yh[:, learnt] - weight[:, ~learnt] @ hh[np.ix_(~learnt, learnt)]  # what the fixed columns leave unexplained
        weight = weight.copy()
        weight[:, learnt] = _solve_symmetric(hh[np.ix_(learnt, learnt)], rest.T).T  #             (7.1), (7.2)
    if learn_noise:
        off = y - h @ weight.T  # (M, q)
        W = weight[:, :n]
        left = off.T @ off + yy - W @ yz.T - yz @ W.T + W @ zz @ W.T  # (q, q)                    (7.3)
        noise = floored(left / rows, (np.square(y).sum(0) + np.diagonal(yy)) / rows)
    return weight, noise


def _solve_symmetric(a: Array, b: Array) -> Array:
    """The least x with a x = b, a (m, m) positive semi-definite: columns that say the same share the weight."""
    unit = np.sqrt(np.where(np.diagonal(a) > 0, np.diagonal(a), 1))
    inverse = np.linalg.pinv(a / np.outer(unit, unit), rcond=len(a) * float(np.finfo(a.dtype).eps), hermitian=True)
    return inverse @ (b / unit[:, None]) / unit[:, None]
