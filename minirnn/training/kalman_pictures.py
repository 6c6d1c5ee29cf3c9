"""A series with what a linear Gaussian model says of it: its smoothed level, what fills its gaps, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirnn.data.kinds import Numbers
from minirnn.training.pictures import figure, save

PANELS = 6  # columns that are drawn below each other; those beyond are left out


def level(
    x: Numbers,
    hidden: NDArray[np.bool_],
    smoothed: tuple[Numbers, Numbers],
    ahead: tuple[Numbers, Numbers, Numbers],
    columns: Sequence[str],
    path: Path,
    *,
    level: float = 0.9,
    axis: tuple[float, float] = (0.0, 1.0),
) -> Path:
    """One panel for each column.

    x         (T, D) the series; rows where `hidden` (T,) is set were not shown to the model
    smoothed  mean and standard deviation (T, D) of the level given all that was shown
    ahead     mean, lower and upper end (L, D) of the observations after the last
    axis      the time of the first row, and between two rows
    """
    (start, period), T, L = axis, len(x), len(ahead[0])
    t, after = start + period * np.arange(T), start + period * (T + np.arange(L))
    half, count = NormalDist().inv_cdf(0.5 + level / 2), min(PANELS, len(columns))
    picture = figure(10, 3.2 * count + 0.8)
    panels: list[Any] = list(picture.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for d, axes in enumerate(panels):
        mean, off = smoothed[0][:, d], half * smoothed[1][:, d]
        axes.fill_between(t, mean - off, mean + off, color="tab:blue", alpha=0.25, linewidth=0, label=f"{level:.0%} of the level")
        axes.plot(t, mean, color="tab:blue", label="smoothed level")
        axes.plot(t[~hidden], x[~hidden, d], ".", color="black", markersize=5, label="seen")
        if hidden.any():
            axes.plot(t[hidden], x[hidden, d], "o", color="tab:red", markerfacecolor="none", markersize=4, label="hidden from the model")
        expected, lower, upper = (part[:, d] for part in ahead)
        axes.fill_between(after, lower, upper, color="tab:orange", alpha=0.25, linewidth=0, label=f"{level:.0%} of what comes")
        axes.plot(after, expected, color="tab:orange", label="forecast")
        axes.set_ylabel(columns[d])
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    panels[0].legend(loc="upper right", fontsize=8, ncols=3)
    return save(picture, path)
