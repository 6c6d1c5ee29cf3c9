"""A batch of sequences read in chunks of steps, the state carried on from one to the next: truncated BPTT, with an update after each.

Williams and Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", BPTT(h; h'): every
h' = k1 steps the gradient of the loss of these steps, taken back through the last h = k2 >= k1 steps and no further.

    steps      ... | begin ...     | counted ...      | end
                     k2 - k1 again   k1 new ones, whose loss counts

Where k2 > k1, the k2 - k1 steps before the counted ones run once more, with the weights as they are now, from the state that was kept
before `begin`; their loss does not count again. What is kept of a step is its state as it was last computed, with the weights of then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from minirnn.device import Array
from minirnn.nn import LSTM, Packed, Packing
from minirnn.tensor import Tensor

State: TypeAlias = "tuple[Array, ...] | None"  # h, c (K, N, H), longest sequences first; None at the beginning


class Chunk(NamedTuple):
    """Steps begin .. end - 1 of a batch.

    begin    the first step that runs, from the state that is given
    counted  the first step whose loss counts
    keep     the state before this step is what the next chunk is given
    end
    """

    begin: int
    counted: int
    keep: int
    end: int


def chunks(T: int, k1: int, k2: int) -> list[Chunk]:
    """T steps in chunks of k1 counted ones, k2 in all as far as there are so many before."""
    found = []
    for counted in range(0, T, k1):
        end = min(counted + k1, T)
        found.append(Chunk(max(0, counted - (k2 - k1)), counted, max(0, end - (k2 - k1)), end))
    return found


class Reader(ABC):
    """A batch under a model whose one recurrence over it is `layer`; `packing` says how the rows of all its steps lie.

    The states are in the order of the rows, longest sequences first.
    """

    unit: float = 1.0  # what the loss of all rows together is divided by, beside their number
    offset: float = 0.0  # what is added to every loss

    def __init__(self, layer: LSTM, packing: Packing) -> None:
        self.layer, self.packing = layer, packing

    def start(self, chunk: Chunk) -> tuple[Tensor, ...] | None:
        """The states before step 0, (K, N, H) each, with their graph; zeros if None. Called once for each chunk, before all else."""
        return None

    @abstractmethod
    def inputs(self, rows: slice) -> Tensor:
        """What the layer is given in these rows: (S', D)."""

    @abstractmethod
    def cost(self, states: Packed, rows: slice) -> Tensor:
        """The loss of these rows, whose states these are: their sum."""

    @property
    def T(self) -> int:
        return self.packing.T

    def size(self, chunk: Chunk) -> int:
        """Rows whose loss counts."""
        rows, _ = part(self.packing, chunk.counted, chunk.end)
        return int(rows.stop - rows.start)

    def loss(self, chunk: Chunk, state: State) -> tuple[Tensor, State]:
        """The mean loss of the counted rows, in the unit of the whole batch's loss, and the state for the next chunk."""
        first = self.start(chunk)
        running = first if state is None else tuple(Tensor(s) for s in state)
        kept, costs = state, []
        for begin, end in pairwise(sorted({chunk.begin, chunk.counted, chunk.keep, chunk.end})):
            rows, own = part(self.packing, begin, end)
            given = None if running is None else tuple(s if s.shape[1] == own.N else s[:, : own.N] for s in running)
            states, running = self.layer(Packed(self.inputs(rows), own), given)
            if end == chunk.keep:
                kept = tuple(s.data for s in running)
            if begin >= chunk.counted:
                costs.append(self.cost(states, rows))
        total = costs[0] if len(costs) == 1 else costs[0] + costs[1]
        return total / (self.size(chunk) * self.unit) + self.offset, kept


def part(packing: Packing, begin: int, end: int) -> tuple[slice, Packing]:
    """The rows of steps begin .. end - 1, and how they lie: the sequences that have a step `begin`, longest first."""
    stop = packing.S if end >= packing.T else int(packing.starts[end])
    running = int(packing.batch_sizes[begin])
    return slice(int(packing.starts[begin]), stop), Packing(np.minimum(packing.sorted_lengths[:running], end) - begin)
