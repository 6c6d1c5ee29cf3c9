"""How series are shown to a model that learns them: cut into pieces, music moved up or down, and with gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minirnn.data import bucketed
from minirnn.data.kinds import Numbers
from minirnn.device import Array

GAP = 10  # frames in a gap, on average


@dataclass(frozen=True)
class Pieces:
    """The numbers of the pieces of one batch, and the seed of what is drawn for it."""

    numbers: Array
    seed: int


class Cutter:
    """Pieces of series, as many of each as it takes to cover it.

    Args:
        series: (T_n, D) each.
        crop: a longer series is cut into pieces of so many frames, anywhere; 0 never cuts.
        transpose: music is moved by up to so many semitones, up or down.
        gaps: the share of frames that are hidden (NaN), some 10 at a time.
    """

    def __init__(self, series: Sequence[Numbers], crop: int, transpose: int, gaps: float) -> None:
        self.series, self.transpose, self.gaps = series, transpose, gaps
        self.pieces = [(k, min(n, crop or n)) for k, n in enumerate(map(len, series)) for _ in range(-(-n // (crop or n)))]

    def batches(self, size: int, rng: np.random.Generator) -> list[Pieces]:
        frames = [frames for _, frames in self.pieces]
        numbers = bucketed(frames, frames, size, rng)
        return [Pieces(chosen, int(seed)) for chosen, seed in zip(numbers, rng.integers(2**32, size=len(numbers)), strict=True)]

    def frames(self, batch: Pieces) -> int:
        return sum(self.pieces[k][1] for k in batch.numbers)

    def shown(self, batch: Pieces) -> list[Numbers]:
        """What the model is shown of a batch: the same each time."""
        rng, shown = np.random.default_rng(batch.seed), []
        for number, frames in (self.pieces[k] for k in batch.numbers):
            x = self.series[number]
            start = rng.integers(len(x) - frames + 1)
            x = x[start : start + frames]
            if self.transpose:
                x = transposed(x, int(rng.integers(-self.transpose, self.transpose + 1)))
            if self.gaps:
                x = np.where(_gaps(frames, self.gaps, rng)[:, None], np.nan, x)
            shown.append(x)
        return shown


def transposed(roll: Numbers, semitones: int) -> Numbers:
    """Music moved up or down; as it is, if a note would fall off the keyboard."""
    moved = np.roll(roll, semitones, axis=1)
    fallen = moved[:, :semitones] if semitones > 0 else moved[:, len(moved.T) + semitones :]
    return roll if fallen.any() else moved


def _gaps(frames: int, share: float, rng: np.random.Generator) -> Array:
    """Which of the frames are hidden, (T,): stretches of some 10, and about `share` in all."""
    hidden = np.zeros(frames + 2 * GAP, np.bool_)  # a gap may have begun before the first frame
    for start in np.flatnonzero(rng.random(len(hidden)) < share / GAP):
        hidden[start : start + 1 + rng.integers(2 * GAP - 1)] = True
    return hidden[2 * GAP :]
