"""Attention fused: a query's scores, weights and context while its keys are in cache; threads share the sequences. Equation numbers are
numpy_.py's.

A key's gradient is summed by one thread over the queries of its sequence in their order, and no query's numbers depend on another's, so
neither the number of threads nor what else is in the batch makes a difference. Functions take whole arrays and where in them a row begins:
a slice would cost more than the sum over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.pointwise import exp
from minirnn.kernels.vectors import lanes_of, load, store, total, zeros

OPERATIONS = 8  # per query, key and feature, as `workers` counts them


def forward(q: Array, k: Array, owners: Array, there: Array | None) -> tuple[Array, Array]:
    """q (S, D), k (N, G, D) float32 or float64, owners (S,), there (N, G) booleans or None (all) -> c (S, D), a (S, G)"""
    c, a = np.empty(q.shape, q.dtype), np.zeros((len(q), k.shape[1]), q.dtype)
    _run(_forward, len(q), k, owners, there, np.ascontiguousarray(q), np.ascontiguousarray(k), a, c)
    return c, a


def backward(dc: Array, da: Array | None, q: Array, k: Array, owners: Array, there: Array | None, a: Array) -> tuple[Array, Array]:
    """dc (S, D), da (S, G) or None (zeros), a (S, G) from `forward` -> dq (S, D), dk (N, G, D)"""
    dq, dk = np.empty(q.shape, q.dtype), np.empty(k.shape, k.dtype)
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


@compiled(error_model="numpy")
def _forward(p: int, P: int, starts: Array, order: Array, there: Array, q: Array, k: Array, a: Array, c: Array) -> None:
    N, G, D = k.shape
    for n in range(p * N // P, (p + 1) * N // P):
        for place in range(starts[n], starts[n + 1]):
            r = order[place]
            for g in range(G):
                if there[n, g]:
                    a[r, g] = _product(q, r * D, k, (n * G + g) * D, D)  # (1)
            _softmax(n, there, r, a)
            _combine(a, r, k, n, there, c)  # (3)


@compiled(error_model="numpy")
def _backward(
    p: int, P: int, starts: Array, order: Array, there: Array, q: Array, k: Array, a: Array, dc: Array, ds: Array, dq: Array, dk: Array
) -> None:
    N, G, D = k.shape
    for n in range(p * N // P, (p + 1) * N // P):
        for place in range(starts[n], starts[n + 1]):
            r = order[place]
            for g in range(G):
                ds[r, g] = ds[r, g] + _product(dc, r * D, k, (n * G + g) * D, D) if there[n, g] else ds.dtype.type(0)  # (4)
            _through_softmax(r, a, ds)
            _combine(ds, r, k, n, there, dq)  # (6)
        for g in range(G):
            if not there[n, g]:
                dk[n, g] = 0
                continue
            for j in range(0, D, lanes_of(k)):
                if j + lanes_of(k) <= D:
                    _key(starts[n], starts[n + 1], order, ds, q, a, dc, n, g, j, dk, None)
                else:
                    _key(starts[n], starts[n + 1], order, ds, q, a, dc, n, g, j, dk, D - j)


@njit(error_model="numpy")
def _product(x: Array, x_at: int, y: Array, y_at: int, D: int) -> Any:
    """The product of two rows of length D."""
    L, j = lanes_of(x), 0
    sum_0, sum_1, sum_2, sum_3 = zeros(x), zeros(x), zeros(x), zeros(x)
    while j + 4 * L <= D:
        sum_0 = sum_0 + load(x, x_at + j, None) * load(y, y_at + j, None)
        sum_1 = sum_1 + load(x, x_at + j + L, None) * load(y, y_at + j + L, None)
        sum_2 = sum_2 + load(x, x_at + j + 2 * L, None) * load(y, y_at + j + 2 * L, None)
        sum_3 = sum_3 + load(x, x_at + j + 3 * L, None) * load(y, y_at + j + 3 * L, None)
        j += 4 * L
    while j < D:
        sum_0 = sum_0 + load(x, x_at + j, D - j) * load(y, y_at + j, D - j)
        j += L
    return total((sum_0 + sum_1) + (sum_2 + sum_3))


@njit(error_model="numpy")
def _combine(w: Array, r: int, k: Array, n: int, there: Array, out: Array) -> None:
    """out[r] = sum over the g where a key is of w[r, g] k[n, g], four registers of it at a time"""
    _, G, D = k.shape
    L, j = lanes_of(k), 0
    while j + 4 * L <= D:
        sum_0, sum_1, sum_2, sum_3 = zeros(k), zeros(k), zeros(k), zeros(k)
        for g in range(G):
            if there[n, g]:
                weight, at = w[r, g], (n * G + g) * D + j
                sum_0 = sum_0 + load(k, at, None) * weight
                sum_1 = sum_1 + load(k, at + L, None) * weight
                sum_2 = sum_2 + load(k, at + 2 * L, None) * weight
                sum_3 = sum_3 + load(k, at + 3 * L, None) * weight
        store(out, r * D + j, sum_0, None)
        store(out, r * D + j + L, sum_1, None)
        store(out, r * D + j + 2 * L, sum_2, None)
        store(out, r * D + j + 3 * L, sum_3, None)
        j += 4 * L
    while j < D:
        sum_0 = zeros(k)
        for g in range(G):
            if there[n, g]:
                sum_0 = sum_0 + load(k, (n * G + g) * D + j, D - j) * w[r, g]
        store(out, r * D + j, sum_0, D - j)
        j += L


@njit(error_model="numpy")
def _key(
    first: int, last: int, order: Array, ds: Array, q: Array, a: Array, dc: Array, n: int, g: int, j: int, dk: Array, left: Any
) -> None:
    """(7), one register of the gradient of key g"""
    _, G, D = dk.shape
    by_score, by_weight = zeros(dk), zeros(dk)
    for place in range(first, last):
        r = order[place]
        by_score = by_score + load(q, r * D + j, left) * ds[r, g]
        by_weight = by_weight + load(dc, r * D + j, left) * a[r, g]
    store(dk, (n * G + g) * D + j, by_score + by_weight, left)


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _softmax(n: int, there: Array, r: int, s: Array) -> None:
    """(2), in place"""
    G = s.shape[1]
    top, zero = s.dtype.type(-np.inf), s.dtype.type(0)
    for g in range(G):
        top = s[r, g] if there[n, g] and not s[r, g] <= top else top
    top = top if np.isfinite(top) else zero
    whole = zero
    for g in range(G):
        s[r, g] = exp(s[r, g] - top) if there[n, g] else zero
        whole += s[r, g]
    if whole != 0:
        for g in range(G):
            s[r, g] /= whole


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _through_softmax(r: int, a: Array, ds: Array) -> None:
    """(5), from da in place"""
    G = a.shape[1]
    along = a.dtype.type(0)
    for g in range(G):
        along += a[r, g] * ds[r, g]
    for g in range(G):
        ds[r, g] = a[r, g] * (ds[r, g] - along)
