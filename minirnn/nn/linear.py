"""Linear maps: of vectors, and of one-hot vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirnn import ops
from minirnn.device import on_host
from minirnn.nn import init
from minirnn.nn.module import Module, Parameter, check_features
from minirnn.ops.indexing import usable_ids
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


class Linear(Module):
    """y = x W^T + b over the last axis: x (..., in_features), y (..., out_features).

    weight (out_features, in_features), bias (out_features,): both uniform on +-1 / sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: Rng = None) -> None:
        self.in_features = in_features
        self.out_features = out_features
        rng = generator(rng)
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = init.uniform_(Parameter(np.empty((out_features, in_features), np.float32)), -bound, bound, rng)
        self.bias = init.uniform_(Parameter(np.empty(out_features, np.float32)), -bound, bound, rng) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features); y (..., out_features)."""
        check_features(self, x, self.in_features, "in_features", "(..., D)")
        return ops.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    """y = weight[ids]: the row of each id.

    weight (num_embeddings, embedding_dim) from N(0, 1); the row `padding_idx` is zero and learns nothing.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, rng: Rng = None) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: padding_idx={padding_idx} is outside num_embeddings={num_embeddings}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = init.normal_(Parameter(np.empty((num_embeddings, embedding_dim), np.float32)), rng=rng)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, ids: Any) -> Tensor:
        """ids: integers of any shape, an array or a Tensor; returns ids.shape + (embedding_dim,)."""
        ids = ids.data if isinstance(ids, Tensor) else np.asarray(ids) if isinstance(ids, (list, tuple, int)) else ids
        if self.padding_idx is None:
            return ops.take_rows(self.weight, ids)
        if not on_host(self.weight.data):  # moved once, for the rows and for the padding
            ids = usable_ids("Embedding", ids, self.num_embeddings, self.weight)
        rows = ops.take_rows(self.weight, ids)
        return ops.where((ids != self.padding_idx)[..., None], rows, rows.detach())

    def describe(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
