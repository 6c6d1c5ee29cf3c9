"""Piano rolls to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from minirnn.data.music import KEYS, key_names
from minirnn.training.pictures import figure, save

MARGIN = 3  # keys above the highest and below the lowest


def piano_rolls(rolls: Sequence[ArrayLike], titles: Sequence[str], path: Path, begins: int = 0) -> Path:
    """Piano rolls (T, 88) below each other, time to the right; a line where frame `begins` does, if it is not 0. The path."""
    arrays = [np.asarray(roll) for roll in rolls]
    keys = np.flatnonzero(np.any([array.any(axis=0) for array in arrays], axis=0))
    low, high = (max(0, keys[0] - MARGIN), min(KEYS, keys[-1] + 1 + MARGIN)) if len(keys) else (27, 63)
    picture = figure(min(14, max(5, 0.09 * max(map(len, arrays)) + 1.5)), 2.2 * len(arrays) + 0.4)
    for axes, roll, title in zip(picture.subplots(len(arrays), 1, squeeze=False)[:, 0], arrays, titles, strict=True):
        extent = (0, len(roll), low - 0.5, high - 0.5)
        axes.imshow(
            roll[:, low:high].T, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest", extent=extent
        )
        octaves = [(key, name) for key, name in enumerate(key_names()) if low <= key < high and name.startswith("C") and "#" not in name]
        axes.set_yticks([key for key, _ in octaves], [name for _, name in octaves])
        axes.grid(axis="y", alpha=0.3)
        axes.set_title(title, fontsize=9, loc="left")
        if begins:
            axes.axvline(begins, color="tab:red", linewidth=1)
    axes.set_xlabel("frames")
    return save(picture, path)
