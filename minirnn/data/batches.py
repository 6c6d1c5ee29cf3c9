"""Batches of examples of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirnn.random import Rng, generator

POOL = 100  # batches sorted by length together: large enough for even lengths, small enough for chance


def bucketed(
    source_lengths: ArrayLike,
    target_lengths: ArrayLike,
    batch_size: int,
    rng: Rng = None,
    tokens: int | None = None,
) -> list[NDArray[np.int64]]:
    """Example numbers in batches of similar length, each example once, the batches in random order.

    The examples are shuffled, sorted by target and source length within pools of 100 batches, cut, and the batches shuffled.

    Args:
        source_lengths, target_lengths: (N,) lengths in tokens.
        batch_size: the most examples in a batch.
        rng: decides the order; the same generator state gives the same batches.
        tokens: the most tokens in a batch, source and target together; an example longer than that is alone in its batch.
    """
    source, target = np.asarray(source_lengths), np.asarray(target_lengths)  # (N,)
    if source.ndim != 1 or source.shape != target.shape:
        raise ValueError(f"bucketed: expected source and target lengths (N,) and (N,), got {source.shape} and {target.shape}")
    if batch_size < 1 or (tokens is not None and tokens < 1):
        raise ValueError(f"bucketed: batch_size and tokens must be at least 1, not {batch_size} and {tokens}")
    chance = generator(rng)
    order = chance.permutation(len(source))  # (N,)
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.lexsort((source[pool], target[pool]))]
        cuts = range(batch_size, len(pool), batch_size) if tokens is None else _cuts((source + target)[pool], batch_size, tokens)
        batches.extend(np.split(pool, list(cuts)))
    return [batches[i] for i in chance.permutation(len(batches))]


def _cuts(lengths: NDArray[np.int64], batch_size: int, tokens: int) -> list[int]:
    cuts, start, total = [], 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and (i - start == batch_size or total + length > tokens):
            cuts.append(i)
            start, total = i, 0
        total += length
    return cuts


@dataclass(frozen=True)
class TranslationBatch:
    """Sentence pairs as numbers, each as long as it is; begin and end are the model's to add.

    Args:
        source, target: N arrays (L_n,) of piece numbers each.
    """

    source: Sequence[NDArray[np.int64]]
    target: Sequence[NDArray[np.int64]]

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise ValueError(f"TranslationBatch: {len(self.source)} sources but {len(self.target)} targets")

    @property
    def size(self) -> int:
        """N, how many pairs."""
        return len(self.source)

    @property
    def tokens(self) -> int:
        """Predictions that the decoder makes: every target piece and one end mark for each pair."""
        return sum(map(len, self.target)) + len(self.target)
