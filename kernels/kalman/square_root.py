"""The Kalman filter and smoother in square-root form: a covariance is kept as a factor U, P = U U^T, and never multiplied out on the way.

A factor has the square root of its covariance's condition number, so float32 serves where the covariance form would need twice as many
digits, and U U^T cannot lose its sign. Each step is a QR decomposition: an orthogonal Theta from the right makes a block of rows lower
triangular and leaves the product of the block with its transpose as it is. Comparing the products on both sides proves each line. M is
the diagonal matrix of what is observed (1) and missing (0); D D^T = R, B B^T = Q, B0 B0^T = P0.

    (5.1)  U-_1 = B0                                                            U- : of the predicted covariance
    (5.2)  [ A U_{t-1}   B ] Theta = [ U-_t   0 ]
    (5.3)  [ M D   I - M   M C U-_t ]         [ V    0   0 ]                    V V^T = S_t, the innovation's covariance
           [  0      0       U-_t   ] Theta = [ Kbar U_t 0 ]                    Kbar = K_t V
    (5.4)  w = V^-1 M (x_t - C m-_t - d_t),   m_t = m-_t + Kbar w
    (5.5)  ln p(x_t | x_<t) = - (w^T w + p_t ln 2 pi) / 2 - sum_j ln |V_jj|     p_t: how many are observed

    (5.6)  [ A U_t   B ]         [ U-_{t+1}  0   0 ]                            Jbar = J_t U-_{t+1}, J_t the smoother's gain
           [  U_t    0 ] Theta = [ Jbar     W_t  0 ]                            W_t W_t^T = Cov[z_t | z_{t+1}, x_1..x_t]
    (5.7)  mhat_t = m_t + J_t (mhat_{t+1} - m-_{t+1})                           hats: given all observations
    (5.8)  [ J_t Uhat_{t+1}   W_t ] Theta = [ Uhat_t   0 ]
    (5.9)  Cov[z_{t+1}, z_t | x_1..x_T] = Uhat_{t+1} Uhat_{t+1}^T J_t^T

The columns I - M of (5.3) give what is missing an innovation of variance 1 and value 0, which moves nothing. (5.6) needs no smoothed
number and is done for all steps at once. Sources: Kailath, Sayed and Hassibi, *Linear Estimation* (2000), chapter 12, for the filter; Park
and Kailath, *New square-root smoothing algorithms* (1996), for the smoother.

NumPy's own QR computes in double precision whatever it is given; with float32 it is what is kept between the steps that is single.
"""

from __future__ import annotations

import math

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Filtered, Parameters, Smoothed, not_definite, problem


def filter(parameters: Parameters, y: Array, lengths: Array | None = None) -> Filtered:
    """y (N, T, p), NaN where nothing was observed; lengths (N,), None: all of T. Fills `factor` as well."""
    q = problem(parameters, y, lengths)
    (N, T, p), n = y.shape, len(q.A)
    B, D = (_factor(given, cov) for given, cov in ((parameters.B, q.Q), (parameters.D, q.R)))  # (n, q), (p, r)
    B0 = np.broadcast_to(_factor(parameters.B0, parameters.P0), (N, n, _columns(parameters)))  # (N, n, s)
    predicted_mean, mean = np.zeros((2, N, T, n), y.dtype)
    predicted_factor, factor = np.zeros((2, N, T, n, n), y.dtype)
    log_likelihoods = np.zeros((N, T), y.dtype)

    for t in range(T):
        run = np.flatnonzero(q.lengths > t)  # (k,) the sequences that are still running
        if t == 0:
            m, U = q.m0[run], triangular(B0[run])  # (k, n), (k, n, n)                            (5.1)
        else:
            m = _apply(q.A, mean[run, t - 1]) + q.b[run, t]  # (k, n)
            U = triangular(_beside(q.A @ factor[run, t - 1], B))  # (k, n, n)                     (5.2)
        predicted_mean[run, t], predicted_factor[run, t] = m, U
        seen = q.seen[run, t].astype(y.dtype)  # (k, p) the diagonal of M
        noise = seen[:, :, None] * D  # (k, p, r)
        if not seen.all():
            noise = _beside(noise, (1 - seen)[:, :, None] * np.eye(p, dtype=y.dtype))  # (k, p, r + p)
        array = _blocks(noise, seen[:, :, None] * (q.C @ U), U)  # (k, p + n, r + p + n)
        array = triangular(array)  #                                                              (5.3)
        V, K, factor[run, t] = array[:, :p, :p], array[:, p:, :p], array[:, p:, p:]
        pivots = np.abs(np.diagonal(V, axis1=1, axis2=2))  # (k, p)
        if not (pivots > 0).all():
            raise not_definite(t, int(run[np.argmin(pivots.min(1))]))
        v = seen * (q.y[run, t] - _apply(q.C, m) - q.d[run, t])  # (k, p)
        w = np.linalg.solve(V, v[..., None])[..., 0]  # (k, p)
        mean[run, t] = m + _apply(K, w)  # (k, n)                                                 (5.4)
        log_likelihoods[run, t] = -0.5 * ((w**2).sum(1) + seen.sum(1) * math.log(2 * math.pi)) - np.log(pivots).sum(1)  # (5.5)

    return Filtered(predicted_mean, _square(predicted_factor), mean, _square(factor), log_likelihoods, q.lengths, factor)


def smooth(parameters: Parameters, filtered: Filtered) -> Smoothed:
    """What this module's `filter` returned for the same parameters"""
    U, A = filtered.factor, parameters.A  # (N, T, n, n), (n, n)
    if U is None:
        raise ValueError("kalman: the square-root smoother needs what the square-root filter returned, with its factors")
    (T, n), B = filtered.mean.shape[1:], _factor(parameters.B, parameters.Q)  # (n, q)
    array = np.zeros((*U[:, :-1].shape[:2], 2 * n, n + B.shape[1]), U.dtype)  # (N, T - 1, 2n, n + q)
    array[..., :n, :n], array[..., :n, n:], array[..., n:, :n] = A @ U[:, :-1], B, U[:, :-1]
    array = triangular(array)  # (N, T - 1, 2n, 2n)                                               (5.6)
    J, W = _divide(array[..., n:, :n], array[..., :n, :n]), array[..., n:, n:]  # (N, T - 1, n, n)
    mean, factor = filtered.mean.copy(), U.copy()  # right at each sequence's last step
    cross = np.zeros_like(U)

    for t in range(T - 2, -1, -1):
        run = np.flatnonzero(filtered.lengths > t + 1)  # (k,)
        gain = J[run, t]  # (k, n, n)
        mean[run, t] += _apply(gain, mean[run, t + 1] - filtered.predicted_mean[run, t + 1])  #   (5.7)
        factor[run, t] = triangular(_beside(gain @ factor[run, t + 1], W[run, t]))  #             (5.8)
    cov = _square(factor)  # (N, T, n, n)
    running = np.arange(1, T) < filtered.lengths[:, None]  # (N, T - 1)
    cross[:, 1:] = np.where(running[..., None, None], cov[:, 1:] @ _T(J), 0)  #                   (5.9)
    return Smoothed(mean, cov, cross)


def triangular(array: Array) -> Array:
    """The lower triangular (..., n, n) with the same product with its transpose as `array` (..., n, m)."""
    n, m = array.shape[-2:]
    if m < n:
        array = np.concatenate([array, np.zeros((*array.shape[:-1], n - m), array.dtype)], axis=-1)
    return _T(np.linalg.qr(_T(array), mode="r"))


def _factor(given: Array | None, cov: Array) -> Array:
    """The given factor, or one of cov (..., n, n), which may be singular."""
    if given is not None:
        return given
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov)
        return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]


def _columns(parameters: Parameters) -> int:
    """Columns of the factor of P0."""
    return int((parameters.P0 if parameters.B0 is None else parameters.B0).shape[-1])


def _divide(a: Array, b: Array) -> Array:
    """x (..., n, n) with x b = a, for triangular b whose rows reach all of a; directions in which nothing varies get zero."""
    n = b.shape[-1]
    pivots, sizes = np.abs(np.diagonal(b, axis1=-2, axis2=-1)), np.abs(b).max((-2, -1), initial=0)  # (..., n), (...)
    regular = (pivots > n * np.finfo(b.dtype).eps * sizes[..., None]).all(-1)  # (...)
    if regular.all():
        return _T(np.linalg.solve(_T(b), _T(a)))
    return a @ np.linalg.pinv(b, rcond=n * np.finfo(b.dtype).eps)


def _beside(a: Array, b: Array) -> Array:
    """[a b] for a (k, n, m) and b (n, l) or (k, n, l)."""
    return np.concatenate([a, np.broadcast_to(b, (*a.shape[:-1], b.shape[-1]))], axis=-1)


def _blocks(noise: Array, CU: Array, U: Array) -> Array:
    """The left side of (5.3), for noise (k, p, r), C U- (k, p, n) and U- (k, n, n)."""
    (k, p, r), n = noise.shape, U.shape[-1]
    array = np.zeros((k, p + n, r + n), U.dtype)
    array[:, :p, :r], array[:, :p, r:], array[:, p:, r:] = noise, CU, U
    return array


def _square(U: Array) -> Array:
    return U @ _T(U)


def _apply(a: Array, x: Array) -> Array:
    """a (n, m) or (k, n, m) times the vectors x (k, m): (k, n)"""
    return (a @ x[..., None])[..., 0]


def _T(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)
