"""Steps in a row that a recurrent layer takes together: it computes their gates again, or lets no gradient out of them, on its own."""

from __future__ import annotations

from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from minirnn.device import Array
from minirnn.kernels.packed import starts

CUT: ContextVar[int] = ContextVar("cut", default=0)  # the `cut` of all layers, 0 for none: see `minirnn.study.truncated`

ROWS = 1024  # of a piece: enough for products at full speed, few enough for its gates to stay in the cache


class Piece(NamedTuple):
    """Some steps in a row."""

    rows: slice
    batch_sizes: Array
    before: int  # first row of the step before the piece, -1 where there is none
    kept: bool  # whether its gates are kept for the backward pass
    cut: bool = False  # whether no gradient passes to the step before

    @property
    def n(self) -> int:
        """Sequences that are running when it begins."""
        return int(self.batch_sizes[0])


def pieces(batch_sizes: Array, recompute: float, cut: int = 0) -> list[Piece]:
    """All steps in order: those whose gates are kept, as one piece, then the share `recompute` of the rows in pieces of about ROWS.

    With a `cut` another piece begins every so many steps.
    """
    if recompute == 0 and not cut:
        return [Piece(slice(0, int(batch_sizes.sum())), batch_sizes, -1, True)]
    first = starts(batch_sizes)  # (T+1,)
    T, S = len(batch_sizes), int(first[-1])
    kept = int(np.searchsorted(first, S * (1 - recompute)))
    count = max(1, round((S - first[kept]) / ROWS))
    ends = np.searchsorted(first, np.linspace(first[kept], S, count + 1).round())
    steps = np.unique([0, kept, *ends, *(range(cut, T, cut) if cut else ()), T]).tolist()
    return [
        Piece(
            slice(int(first[t]), int(first[end])),
            batch_sizes[t:end],
            int(first[t - 1]) if t else -1,
            end <= kept,
            cut > 0 and t > 0 and t % cut == 0,
        )
        for t, end in pairwise(steps)
    ]
