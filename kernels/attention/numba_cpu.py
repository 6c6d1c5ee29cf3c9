"""Attention fused: a query's scores, weights and context while its keys are in cache; threads share the sequences. Equation numbers are
numpy_.py's.

A key's gradient is summed by one thread over the queries of its sequence in their order, and no query's numbers depend on another's, so
neither the number of threads nor what else is in the batch makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.pointwise import exp

OPERATIONS = 15  # per query, key and feature, as `workers` counts them


def forward(q: Array, k: Array, owners: Array, there: Array | None) -> tuple[Array, Array]:
    """q (S, D), k (N, G, D) float32 or float64, owners (S,), there (N, G) booleans or None (all) -> c (S, D), a (S, G)"""
    c, a = np.empty(q.shape, q.dtype), np.zeros((len(q), k.shape[1]), q.dtype)
    _run(_forward, len(q), k, owners, there, np.ascontiguousarray(q), np.ascontiguousarray(k), a, c)
    return c, a


def backward(dc: Array, da: Array | None, q: Array, k: Array, owners: Array, there: Array | None, a: Array) -> tuple[Array, Array]:
    """dc (S, D), da (S, G) or None (zeros), a (S, G) from `forward` -> dq (S, D), dk (N, G, D)"""
    dq, dk = np.empty(q.shape, q.dtype), np.zeros(k.shape, k.dtype)
    ds = np.zeros(a.shape, a.dtype) if da is None else np.array(da, order="C")  # da at first
    _run(_backward, 2 * len(q), k, owners, there, *map(np.ascontiguousarray, (q, k, a, dc)), ds, dq, dk)
    return dq, dk


def _run(function: Callable[..., None], passes: int, k: Array, owners: Array, there: Array | None, *arrays: Array) -> None:
    """function(p, P, starts, order, there, *arrays); the queries of sequence n are order[starts[n] : starts[n + 1]]."""
    N = len(k)
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(N + 1))
    present = np.ones(k.shape[:2], bool) if there is None else np.array(there, order="C")
    operations = float(OPERATIONS * passes * k.size // max(N, 1))
    P, worth_waking = min(N, workers.threads(operations)), operations > workers.WORTH_WAKING
    workers.run(function, P, starts, order, present, *arrays, worth_waking=worth_waking)


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _products(x: Array, k: Array, there: Array, out: Array) -> None:
    """out[g] += x . k[g] where a key is"""
    for g in range(len(k)):
        if there[g]:
            total = x.dtype.type(0)
            for j in range(len(x)):
                total += x[j] * k[g, j]
            out[g] += total


@compiled(error_model="numpy", fastmath={"contract"})
def _combination(w: Array, k: Array, there: Array, out: Array) -> None:
    """out = sum over the g where a key is of w[g] k[g]"""
    out[:] = 0
    for g in range(len(k)):
        if there[g]:
            for j in range(len(out)):
                out[j] += w[g] * k[g, j]


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _softmax(s: Array, there: Array) -> None:
    """(2), in place"""
    top = s.dtype.type(-np.inf)
    for g in range(len(s)):
        top = s[g] if there[g] and not s[g] <= top else top
    top = top if np.isfinite(top) else s.dtype.type(0)
    total = s.dtype.type(0)
    for g in range(len(s)):
        s[g] = exp(s[g] - top) if there[g] else s.dtype.type(0)
        total += s[g]
    if total != 0:
        for g in range(len(s)):
            s[g] /= total


@compiled(error_model="numpy")
def _forward(p: int, P: int, starts: Array, order: Array, there: Array, q: Array, k: Array, a: Array, c: Array) -> None:
    N = len(k)
    for n in range(p * N // P, (p + 1) * N // P):
        for r in order[starts[n] : starts[n + 1]]:
            _products(q[r], k[n], there[n], a[r])  # (1)
            _softmax(a[r], there[n])
            _combination(a[r], k[n], there[n], c[r])  # (3)


@compiled(error_model="numpy")
def _backward(
    p: int, P: int, starts: Array, order: Array, there: Array, q: Array, k: Array, a: Array, dc: Array, ds: Array, dq: Array, dk: Array
) -> None:
    N = len(k)
    for n in range(p * N // P, (p + 1) * N // P):
        for r in order[starts[n] : starts[n + 1]]:
            _products(dc[r], k[n], there[n], ds[r])  # (4)
            _through_softmax(a[r], ds[r])
            _combination(ds[r], k[n], there[n], dq[r])  # (6)
            _to_keys(ds[r], q[r], a[r], dc[r], there[n], dk[n])


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _through_softmax(a: Array, ds: Array) -> None:
    """(5), from da in place"""
    along = a.dtype.type(0)
    for g in range(len(a)):
        along += a[g] * ds[g]
    for g in range(len(a)):
        ds[g] = a[g] * (ds[g] - along)


@compiled(error_model="numpy", fastmath={"contract"})
def _to_keys(ds: Array, q: Array, a: Array, dc: Array, there: Array, dk: Array) -> None:
    """(7), the terms of one query"""
    for g in range(len(dk)):
        if there[g]:
            for j in range(len(q)):
                dk[g, j] += ds[g] * q[j] + a[g] * dc[j]
