"""Attention: where in the source each step of the target looks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minirnn import ops
from minirnn.device import Array, beside, is_array, on_host, peek
from minirnn.nn.linear import Linear
from minirnn.nn.module import Module, check_features
from minirnn.nn.packing import Packed
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Kind = Literal["dot", "general", "additive"]
KINDS: tuple[Kind, ...] = ("dot", "general", "additive")


class Attention(Module):
    """a_lt = softmax over t of score(q_l, k_t);   context_l = sum over t of a_lt k_t

        dot       score = q^T k                      Luong et al. 2015, equation 8; query_size = key_size
        general   score = q^T W k                    Luong et al. 2015, equation 8
        additive  score = v^T tanh(W_q q + W_k k)    Bahdanau et al. 2015, appendix A.1.2; `hidden_size` numbers A in between

    On the CPU "dot" and "general" are one kernel, for the steps that there are (`ops.attend`). Otherwise one batched product serves all
    steps of the target. The additive score makes a (N, L, T, A) tensor and its tanh, which the backward pass needs; for long sequences run
    it through `minirnn.checkpoint`, or over parts of L.
    """

    def __init__(self, kind: Kind, query_size: int, key_size: int, hidden_size: int | None = None, *, rng: Rng = None) -> None:
        if kind not in KINDS:
            raise ValueError(f"Attention: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if kind == "dot" and query_size != key_size:
            raise ValueError(f'Attention: "dot" needs query_size = key_size, got {query_size} and {key_size}; "general" takes any')
        rng = generator(rng)
        self.kind, self.query_size, self.key_size = kind, query_size, key_size
        self.hidden_size = key_size if hidden_size is None else hidden_size
        if kind == "general":
            self.query = Linear(query_size, key_size, bias=False, rng=rng)
        elif kind == "additive":
            self.query = Linear(query_size, self.hidden_size, bias=False, rng=rng)
            self.key = Linear(key_size, self.hidden_size, bias=False, rng=rng)
            self.score = Linear(self.hidden_size, 1, bias=False, rng=rng)

    def forward(self, queries: Tensor, keys: Tensor, mask: Any = None, projected: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns context (N, L, D) and weights (N, L, T), whose rows sum to 1.

        queries    (N, L, H)
        keys       (N, T, D)
        mask       (N, T) booleans, false where there is no key: what stands there gets weight 0 and gradient 0, even where it is NaN.
                   A sequence without any key gets context 0
        projected  `project(keys, mask)`, computed once for many calls with the same keys
        """
        check_features(self, queries, self.query_size, "query_size", "(N, L, H)")
        check_features(self, keys, self.key_size, "key_size", "(N, T, D)")
        if queries.ndim != 3 or keys.ndim != 3 or len(queries) != len(keys):
            raise ValueError(f"Attention: queries must be (N, L, H) and keys (N, T, D) with one N, got {queries.shape} and {keys.shape}")
        if self._fused(queries):
            N, L, _ = queries.shape
            owners = np.repeat(np.arange(N), L)
            context, weights = self._attend(queries.reshape(N * L, self.query_size), keys, owners, mask)
            return context.reshape(N, L, self.key_size), weights.reshape(N, L, keys.shape[1])
        keys, there = self._masked(keys, mask)
        if self.kind == "additive":
            projected = self.key(keys) if projected is None else projected
            hidden = ops.tanh(ops.expand_dims(self.query(queries), 2) + ops.expand_dims(projected, 1))  # (N, L, T, A)
            scores = self.score(hidden).reshape(hidden.shape[:3])
        else:
            scores = (self.query(queries) if self.kind == "general" else queries) @ keys.swapaxes(1, 2)  # (N, L, T)
        weights = ops.softmax(scores, axis=-1, mask=None if there is None else there[:, None])
        return weights @ keys, weights

    def of_rows(self, queries: Packed, keys: Tensor, mask: Any = None) -> Tensor:
        """The context (S, D) of every row of ragged queries, each from the keys (N, T, D) of its own sequence."""
        packing = queries.packing
        if self._fused(queries.rows):
            check_features(self, queries.rows, self.query_size, "query_size", "(S, H)")
            check_features(self, keys, self.key_size, "key_size", "(N, T, D)")
            return self._attend(queries.rows, keys, packing.sequence, mask)[0]
        context, _ = self(queries.unpack(batch_first=True), keys, mask)  # (N, L, D)
        return ops.take_rows(context.reshape(-1, context.shape[-1]), packing.places(packing.T), unique=True)  # (S, D)

    def _fused(self, queries: Tensor) -> bool:
        return self.kind != "additive" and on_host(queries.data)

    def _attend(self, queries: Tensor, keys: Tensor, owners: Array, mask: Any) -> tuple[Tensor, Tensor]:
        """Context (S, D) and weights (S, T) of queries (S, H), each of the sequence that `owners` names."""
        if mask is not None:
            mask = mask if is_array(mask) else np.asarray(mask)
            _check_mask(mask, keys)
            mask = None if mask.all() else mask
        return ops.attend(self.query(queries) if self.kind == "general" else queries, keys, owners, mask)

    def project(self, keys: Tensor, mask: Any = None) -> Tensor | None:
        """What of the score depends on the keys alone, (N, T, A): for a decoder that asks step by step. None where there is nothing."""
        return self.key(self._masked(keys, mask)[0]) if self.kind == "additive" else None

    def _masked(self, keys: Tensor, mask: Any) -> tuple[Tensor, Array | None]:
        """The keys, zero where none is, since 0 times NaN would be NaN; and the mask beside them."""
        if mask is None:
            return keys, None
        mask = mask if is_array(mask) else np.asarray(mask)
        _check_mask(mask, keys)
        there = beside(mask, keys.data)
        return keys if peek(mask.all(), otherwise=False) else ops.where(there[:, :, None], keys, 0), there

    def describe(self) -> str:
        return f"{self.kind}, {self.query_size}, {self.key_size}"


def _check_mask(mask: Array, keys: Tensor) -> None:
    if mask.shape != keys.shape[:2] or mask.dtype != bool:
        raise ValueError(f"Attention: mask must be booleans (N, T) = {keys.shape[:2]}, got {mask.dtype} {mask.shape}")
