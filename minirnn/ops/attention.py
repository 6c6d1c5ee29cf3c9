"""Attention by products, of queries that belong to sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minirnn.autograd import Function, is_recording
from minirnn.device import Array, on_host
from minirnn.kernels import flops, registry
from minirnn.ops.elementwise import where
from minirnn.ops.indexing import PutRows, take_rows
from minirnn.ops.reduction import softmax, sum
from minirnn.ops.shape import expand_dims
from minirnn.tensor import Tensor


class Attend(Function):
    """a_r = softmax over g of q_r . k_ng,  c_r = sum over g of a_rg k_ng        da_rg += dc_r . k_ng,  ds = a (da - sum(a da))

    q (S, D), k (N, G, D), n the sequence of row r; outputs c (S, D), a (S, G). dq_r = sum over g of ds_rg k_ng, and dk_ng = sum over the r
    of n of ds_rg q_r + a_rg dc_r. One kernel in either direction, on the CPU; where a gradient is differentiated again, or on another
    device, it is made of primitive operations.
    """

    owners: Array
    there: Array | None
    weights: Array
    weighted = False  # whether the weights had a gradient of their own

    def forward(self, q: Array, k: Array) -> tuple[Array, Array]:
        c, self.weights = registry.fused("attention", q).forward(q, k, self.owners, self.there)
        return c, self.weights

    def backward(self, dc: Tensor | None, da: Tensor | None) -> Sequence[Tensor]:
        q, k = self.inputs
        self.weighted = da is not None
        if dc is None:
            dc = Tensor(np.zeros(q.shape, q.dtype))
        if is_recording():
            return self._recorded(dc, da, q, k)
        arrays = (dc.data, None if da is None else da.data, q.data, k.data, self.owners, self.there, self.weights)
        return [Tensor(g) for g in registry.fused("attention", q.data).backward(*arrays)]

    def _recorded(self, dc: Tensor, da: Tensor | None, q: Tensor, k: Tensor) -> Sequence[Tensor]:
        keys, a = _of_each(q, k, self.owners, self.there)
        given = sum(keys * expand_dims(dc, 1), 2)
        given = given if da is None else given + da
        ds = a * (given - sum(a * given, 1, keepdims=True))
        terms = expand_dims(ds, 2) * expand_dims(q, 1) + expand_dims(a, 2) * expand_dims(dc, 1)
        dk = PutRows.apply(terms, ids=self.owners, rows=len(k), unique=False)
        return sum(expand_dims(ds, 2) * keys, 1), dk if self.there is None else where(self.there[:, :, None], dk, 0)

    def flops(self) -> int:
        return flops.attention(self._pairs(), self.inputs[0].shape[1])

    def backward_flops(self) -> int:
        return flops.attention_gradient(self._pairs(), self.inputs[0].shape[1], self.weighted)

    def _pairs(self) -> int:
        return flops.pairs(self.owners, self.there, self.inputs[1].shape[1])


def attend(queries: Tensor, keys: Tensor, owners: Array, mask: Array | None = None) -> tuple[Tensor, Tensor]:
    """Each query's weights over the keys of its sequence, softmax of the products with them, and the keys' mean by these.

    queries  (S, D)
    keys     (N, G, D)
    owners   (S,) integers of the host, 0..N-1: whose keys each query sees
    mask     (N, G) booleans of the host, false where no key is: what stands there gets weight 0 and gradient 0, be it NaN;
             None: all are there

    Returns context (S, D) and weights (S, G). A query without any key gets zeros.
    """
    if queries.ndim != 2 or keys.ndim != 3 or queries.shape[1] != keys.shape[2]:
        raise ValueError(f"attend: queries must be (S, D) and keys (N, G, D), got {queries.shape} and {keys.shape}")
    if owners.shape != queries.shape[:1] or owners.dtype.kind not in "iu":
        raise ValueError(f"attend: owners must be integers (S,) = {queries.shape[:1]}, got {owners.dtype} {owners.shape}")
    if owners.size and not 0 <= owners.min() <= owners.max() < len(keys):
        raise IndexError(f"attend: owners span {owners.min()}..{owners.max()}, there are keys of 0..{len(keys) - 1}")
    if mask is not None and (mask.shape != keys.shape[:2] or mask.dtype != bool):
        raise ValueError(f"attend: mask must be booleans (N, G) = {keys.shape[:2]}, got {mask.dtype} {mask.shape}")
    if on_host(queries.data):
        context, weights = Attend.apply_all(queries, keys, owners=owners, there=mask)
        return context, weights
    seen, weights = _of_each(queries, keys, owners, mask)
    return sum(expand_dims(weights, 2) * seen, 1), weights


def _of_each(q: Tensor, k: Tensor, owners: Array, there: Array | None) -> tuple[Tensor, Tensor]:
    """The keys that each query sees, (S, G, D), zero where none is, and its weights (S, G)."""
    keys = take_rows(k if there is None else where(there[:, :, None], k, 0), owners)
    mask = None if there is None else there[owners]
    return keys, softmax(sum(keys * expand_dims(q, 1), 2), 1, mask)
