"""Row arithmetic of the packed layout that recurrences share. `batch_sizes` is a NumPy array; states may live on a device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.modules import array_module


def starts(batch_sizes: Array) -> Array:
    """First row of every step, and S after the last: (T + 1,)."""
    return np.concatenate(([0], np.cumsum(batch_sizes, dtype=np.int64)))


def previous(state: Array, state0: Array, batch_sizes: Array) -> Array:
    """The state that each row started from: row (t, n) holds state_{t-1} of sequence n, and state0 at t = 0.

    state (S, H), state0 (N, H), batch_sizes (T,) -> (S, H)
    """
    first, xp = starts(batch_sizes), array_module(state)  # (T+1,)
    N, S = len(state0), len(state)
    if len(batch_sizes) * N == S:  # dense: one block further down
        return xp.concatenate((state0, state[: S - N]))
    before = xp.empty_like(state)  # (S, H)
    before[:N] = state0
    for t in range(1, len(batch_sizes)):
        n = batch_sizes[t]  # the first n sequences of step t-1 go on
        before[first[t] : first[t] + n] = state[first[t - 1] : first[t - 1] + n]
    return before


def weight_gradient(multiply: Callable[..., Array], da: Array, state: Array, state0: Array, batch_sizes: Array) -> Array:
    """da^T previous(state, state0, batch_sizes), which a dense batch does not lay out; da (S, M), the result (M, H).

    multiply(a, b, out=None, accumulate=False): a b, or what `out` was and a b
    """
    N, S = len(state0), len(state)
    if len(batch_sizes) * N != S:
        return multiply(da.T, previous(state, state0, batch_sizes))
    if S == N:
        return multiply(da.T, state0)
    if not state0.any():  # zeros add nothing
        return multiply(da[N:].T, state[: S - N])
    result = multiply(da[N:].T, state[: S - N])
    return multiply(da[:N].T, state0, out=result, accumulate=True)


def last_rows(batch_sizes: Array) -> Array:
    """The row of each sequence's own last step: (N,)."""
    sequence = np.arange(batch_sizes[0])
    lengths = np.searchsorted(-batch_sizes, -sequence)  # how many steps have more than n rows
    return starts(batch_sizes)[lengths - 1] + sequence
