"""Dropout: noise that keeps units from relying on one another."""

from __future__ import annotations

from minirnn import ops
from minirnn.nn.module import Module
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


class Dropout(Module):
    """In training each element is zero with probability p, and the others are divided by 1 - p (Srivastava et al. 2014).

    `rng` is the generator (or its seed) that the module keeps and draws from.
    """

    def __init__(self, p: float = 0.5, *, rng: Rng = None) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is a probability in [0, 1), got {p}")
        self.p = p
        self.rng = generator(rng)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; y like x, and x itself out of training."""
        return ops.dropout(x, self.p, rng=self.rng) if self.training else x

    def describe(self) -> str:
        return f"p={self.p}"
