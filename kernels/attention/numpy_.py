"""Attention: each query looks at the keys of its own sequence, by the products with them.

    s_rg = q_r . k_ng, n the sequence of query r                                    (1)
    a_rg = e^s_rg / sum of e^s over the keys of n that are there, 0 elsewhere       (2)
    c_r = sum over g of a_rg k_ng                                                   (3)

    da_rg = dc_r . k_ng, and what a itself was given                                (4)
    ds_rg = a_rg (da_rg - sum over g of a_rg da_rg)                                 (5)
    dq_r = sum over g of ds_rg k_ng                                                 (6)
    dk_ng = sum over the r of n, in their order, of ds_rg q_r + a_rg dc_r           (7)

What stands where no key is takes no part, be it NaN. A sequence without any gives a = 0 and c = 0.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def forward(q: Array, k: Array, owners: Array, there: Array | None) -> tuple[Array, Array]:
    """q (S, D), k (N, G, D), owners (S,) the sequence of each query, there (N, G) booleans or None (all) -> c (S, D), a (S, G)"""
    c, a = np.zeros(q.shape, q.dtype), np.zeros((len(q), k.shape[1]), q.dtype)
    for rows, keys, present in _sequences(k, owners, there):
        s = q[rows] @ keys.T  #                                                     (1)
        top = s.real.max(axis=1, keepdims=True)
        e = np.exp(s - np.where(np.isfinite(top), top, 0))
        total = e.sum(axis=1, keepdims=True)
        weights = e / np.where(total != 0, total, 1)  #                             (2)
        a[np.ix_(rows, present)] = weights
        c[rows] = weights @ keys  #                                                 (3)
    return c, a


def backward(dc: Array, da: Array | None, q: Array, k: Array, owners: Array, there: Array | None, a: Array) -> tuple[Array, Array]:
    """dc (S, D), da (S, G) or None (zeros), a (S, G) from `forward` -> dq (S, D), dk (N, G, D)"""
    dq, dk = np.zeros(q.shape, q.dtype), np.zeros(k.shape, k.dtype)
    for rows, keys, present in _sequences(k, owners, there):
        weights = a[np.ix_(rows, present)]
        given = dc[rows] @ keys.T  #                                                (4)
        if da is not None:
            given += da[np.ix_(rows, present)]
        ds = weights * (given - (weights * given).sum(axis=1, keepdims=True))  #    (5)
        dq[rows] = ds @ keys  #                                                     (6)
        dk[owners[rows[0]], present] = ds.T @ q[rows] + weights.T @ dc[rows]  #     (7)
    return dq, dk


def _sequences(k: Array, owners: Array, there: Array | None) -> list[tuple[Array, Array, Array]]:
    """For each sequence that has queries and keys: the queries' rows, the keys that are there, and which they are."""
    found = []
    for n in range(len(k)):
        rows = np.flatnonzero(owners == n)
        present = np.arange(k.shape[1]) if there is None else np.flatnonzero(there[n])
        if len(rows) and len(present):
            found.append((rows, k[n, present], present))
    return found
