"""What every form of the Kalman filter is given and returns. Equation numbers are those of README.md in this folder.

    N  sequences      T  steps of the longest      n  state      p  observation

An implementation is a module with `filter(parameters, y, lengths=None) -> Filtered` and `smooth(parameters, filtered) -> Smoothed`; those
that can be differentiated have `score` too. It knows arrays only, of one floating dtype and on one device, and writes to none of its
arguments. `lengths` alone is always a NumPy array, on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.modules import array_module


class Parameters(NamedTuple):
    """z_1 ~ N(m0, P0), z_t = A z_{t-1} + b_t + B eps_t, x_t = C z_t + d_t + D psi_t; Q = B B^T, R = D D^T

    Offsets may change from step to step; what an input u_t adds is one of them (`with_inputs`). b_t is added on the way into step t, so
    b_1 is never read: the first state is drawn from N(m0, P0), and transitions come after it. The factors are for forms that never
    multiply them out; None: the form takes a factor of the covariance itself.
    """

    A: Array  # (n, n)
    Q: Array  # (n, n)
    C: Array  # (p, n)
    R: Array  # (p, p)
    b: Array  # (n,), (T, n) or (N, T, n)
    d: Array  # (p,), (T, p) or (N, T, p)
    m0: Array  # (n,) or (N, n)
    P0: Array  # (n, n) or (N, n, n)
    B: Array | None = None  # (n, q)  B B^T = Q
    D: Array | None = None  # (p, r)  D D^T = R
    B0: Array | None = None  # (n, s)  B0 B0^T = P0


class Filtered(NamedTuple):
    """What is known of each state from the observations before it, and from those up to it. Rows after a sequence's end are zero."""

    predicted_mean: Array  # (N, T, n)     E[z_t | x_<t]
    predicted_cov: Array  # (N, T, n, n)
    mean: Array  # (N, T, n)     E[z_t | x_<=t]
    cov: Array  # (N, T, n, n)
    log_likelihoods: Array  # (N, T)        ln p(x_t | x_<t); 0 where nothing was observed
    lengths: Array  # (N,)
    factor: Array | None = None  # (N, T, n, n)  cov = factor factor^T; from the square-root form, for its smoother

    @property
    def log_likelihood(self) -> Array:
        """ln p(x_1..x_T) of each sequence: (N,)"""
        return self.log_likelihoods.sum(1)


class Smoothed(NamedTuple):
    """What is known of each state from all observations. Rows after a sequence's end are zero."""

    mean: Array  # (N, T, n)     E[z_t | x_1..x_T]
    cov: Array  # (N, T, n, n)
    cross: Array  # (N, T, n, n)  Cov[z_t, z_{t-1} | x_1..x_T]; zero at the first step


class Score(NamedTuple):
    """The gradient of sum_n w_n ln p(x of sequence n) for each parameter, b and d step by step."""

    A: Array  # (n, n)
    Q: Array  # (n, n)  symmetric: dL = <score.Q, dQ> for symmetric dQ
    C: Array  # (p, n)
    R: Array  # (p, p)
    b: Array  # (N, T, n)
    d: Array  # (N, T, p)
    m0: Array  # (N, n)
    P0: Array  # (N, n, n)


class Problem(NamedTuple):
    """Parameters and observations in the one layout that the loops read: C-contiguous, of one dtype, broadcast, NaN taken out."""

    A: Array  # (n, n)
    Q: Array  # (n, n)
    C: Array  # (p, n)
    R: Array  # (p, p)
    b: Array  # (N, T, n)
    d: Array  # (N, T, p)
    m0: Array  # (N, n)
    P0: Array  # (N, n, n)
    y: Array  # (N, T, p)  zero where nothing was observed
    seen: Array  # (N, T, p)  booleans
    lengths: Array  # (N,) int64


Shape: TypeAlias = tuple[int, ...]


def problem(parameters: Parameters, y: Array, lengths: Array | None = None) -> Problem:
    """Parameters and y (N, T, p), NaN where nothing was observed, of sequences of these lengths (None: all of T).

    Raises ValueError or TypeError that names the argument, the shape expected and the one that came.
    """
    if y.ndim != 3 or 0 in y.shape:
        raise ValueError(f"kalman: y must be (N, T, p) with at least one of each, got {y.shape}")
    (N, T, p), n = y.shape, parameters.A.shape[-1]
    if parameters.C.shape != (p, n):
        raise ValueError(
            f"kalman: C must be (p, n) = ({p}, {n}) for y (N, T, p) = {y.shape} and A {parameters.A.shape}, got {parameters.C.shape}"
        )
    shapes: dict[str, tuple[str, Shape, Shape]] = {  # the symbols, the least shape and the whole one
        "A": ("(n, n)", (n, n), (n, n)),
        "Q": ("(n, n)", (n, n), (n, n)),
        "R": ("(p, p)", (p, p), (p, p)),
        "b": ("(n,), (T, n) or (N, T, n)", (n,), (N, T, n)),
        "d": ("(p,), (T, p) or (N, T, p)", (p,), (N, T, p)),
        "m0": ("(n,) or (N, n)", (n,), (N, n)),
        "P0": ("(n, n) or (N, n, n)", (n, n), (N, n, n)),
    }
    xp = array_module(y)
    whole: dict[str, Any] = {"C": xp.ascontiguousarray(parameters.C)}
    for name, (symbols, least, full) in shapes.items():
        array = getattr(parameters, name)
        fits = array.shape[array.ndim - len(least) :] == least and array.ndim <= len(full)
        if not fits or array.shape not in {full[len(full) - array.ndim :], (1,) * (len(full) - len(least)) + least}:
            raise ValueError(f"kalman: {name} must be {symbols} with N={N}, T={T}, n={n}, p={p}, got {array.shape}")
        whole[name] = xp.ascontiguousarray(xp.broadcast_to(array, full))
    for name, array in whole.items():
        if array.dtype != y.dtype:
            raise TypeError(f"kalman: {name} is {array.dtype} and y is {y.dtype}; convert one of them, all arrays share one dtype")
    seen = ~xp.isnan(y)  # (N, T, p)
    return Problem(**whole, y=xp.where(seen, y, 0), seen=seen, lengths=whole_lengths(lengths, N, T))


def running(lengths: Array, T: int, xp: Any) -> list[Any]:
    """Which sequences have a step t, for each t: an index along the axis N. lengths (N,), on the host.

    On a device, parts of one array that moves there once, longest first, and a slice as long as all of them run.
    """
    if xp is np:
        return [np.flatnonzero(lengths > t) for t in range(T)]
    order = xp.asarray(np.argsort(-lengths, kind="stable"))  # (N,)
    counts = [int((lengths > t).sum()) for t in range(T)]
    return [slice(None) if k == len(lengths) else order[:k] for k in counts]


def whole_lengths(lengths: Array | None, N: int, T: int) -> Array:
    """The length of each sequence, (N,) int64, each from 1 to T."""
    if lengths is None:
        return np.full(N, T, np.int64)
    lengths = np.asarray(lengths)
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu" or (lengths < 1).any() or (lengths > T).any():
        raise ValueError(f"kalman: lengths must be (N,) = ({N},) integers from 1 to T={T}, got {np.array2string(lengths, threshold=8)}")
    return lengths.astype(np.int64)


def with_inputs(parameters: Parameters, u: Array, F: Array | None = None, G: Array | None = None) -> Parameters:
    """Parameters whose offsets are b_t + F u_t and d_t + G u_t, for inputs u (T, k) or (N, T, k), F (n, k) and G (p, k) (None: zero)."""
    b = parameters.b if F is None else parameters.b + u @ F.T
    d = parameters.d if G is None else parameters.d + u @ G.T
    return parameters._replace(b=b, d=d)


def not_definite(step: int, sequence: int) -> np.linalg.LinAlgError:
    """What an implementation raises where an observation's covariance (2.4) has no factor."""
    return np.linalg.LinAlgError(
        f"kalman: S = C P C^T + R is not positive definite at step {step} of sequence {sequence}; what is observed must have noise: "
        "make R positive definite, or filter in float64 or by square roots"
    )


def diffuse_start(parameters: Parameters, y: Array) -> tuple[Parameters, Array]:
    """Start where nothing is known of z_1 but the first observation, which is used up: (1.4) to (1.6). C must be square and invertible.

    Returns parameters with m0 (N, n) and P0 (N, n, n), and y without its first row: what is filtered is t >= 2. Raises ValueError where
    C is not square, or a first observation is missing.
    """
    xp = array_module(y)
    C, d = parameters.C, xp.broadcast_to(parameters.d, y.shape)
    check_diffuse(C, y)
    each = xp.broadcast_to(C, (len(y), *C.shape))  # (N, p, n) CuPy solves as many systems as there are matrices
    m0 = xp.linalg.solve(each, (y[:, 0] - d[:, 0])[..., None])[..., 0]  # (N, n)                  (1.4)
    P0 = xp.linalg.solve(C, xp.linalg.solve(C, parameters.R).T)  # (n, n)                         (1.5)
    y = y.copy()
    y[:, 0] = np.nan  #                                                                           (1.6)
    return parameters._replace(m0=m0, P0=0.5 * (P0 + P0.T), B0=None), y


def check_diffuse(C: Array, y: Array) -> None:
    """Raise ValueError unless the first observations y[:, 0] (N, p) determine the states through C (p, n).

    Whether one is missing is looked up on the host alone: a device would have to be waited for.
    """
    if C.shape[0] != C.shape[1]:
        raise ValueError(f"kalman: a diffuse start needs as many observed numbers as states, C (p, n) with p = n, got C {C.shape}")
    if isinstance(y, np.ndarray) and np.isnan(y[:, 0]).any():
        sequence = int(np.flatnonzero(np.isnan(y[:, 0]).any(1))[0])
        raise ValueError(
            f"kalman: a diffuse start needs the first observation, which is missing in sequence {sequence}; leave out what precedes it"
        )
