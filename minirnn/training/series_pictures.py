"""Series to look at: forecasts as fans, what was filtered out of noise and filled into gaps, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.data.kinds import Numbers
from minirnn.training.pictures import figure, save

PANELS = 6  # columns of a picture that are drawn below each other; those beyond are left out
PATHS = 3  # single draws that a fan shows


def fan(
    past: Numbers,
    draws: Numbers,
    columns: Sequence[str],
    path: Path,
    *,
    truth: Numbers | None = None,
    level: float = 0.9,
    axis: tuple[float, float] = (0.0, 1.0),
) -> Path:
    """A series (T, D), and the draws (N, L, D) of what comes next: their median, the middle half, and the middle `level` of them.

    truth  (up to L, D) what really came next
    axis   the time of the first row, and between two rows
    """
    (start, period), T, L = axis, len(past), draws.shape[1]
    before, after = start + period * np.arange(T), start + period * (T + np.arange(L))
    quantiles = np.quantile(draws, [(1 - level) / 2, 0.25, 0.5, 0.75, (1 + level) / 2], axis=0)  # (5, L, D)
    picture, panels = _panels(columns)
    for d, axes in enumerate(panels):
        low, quarter, median, three_quarters, high = quantiles[..., d]
        axes.plot(before, past[:, d], ".-", color="black", linewidth=0.6, markersize=4, label="seen")
        axes.fill_between(after, low, high, color="tab:blue", alpha=0.2, linewidth=0, label=f"{level:.0%} of the draws")
        axes.fill_between(after, quarter, three_quarters, color="tab:blue", alpha=0.3, linewidth=0, label="50%")
        axes.plot(after, median, color="tab:blue", label="median")
        axes.plot(after, draws[:PATHS, :, d].T, color="tab:blue", linewidth=0.5, alpha=0.8)
        if truth is not None:
            axes.plot(after[: len(truth)], truth[:, d], ".", color="tab:red", markersize=4, label="what came")
        axes.set_ylabel(columns[d])
        axes.grid(alpha=0.3)
    return _finished(picture, panels, path)


def filled(
    seen: Numbers,
    mean: Numbers,
    draws: Numbers | None,
    columns: Sequence[str],
    path: Path,
    *,
    truth: Numbers | None = None,
    level: float = 0.9,
) -> Path:
    """A noisy series (T, D), perhaps with gaps (NaN), and what a filter makes of it.

    mean   (T, D) the filtered observation
    draws  (N, T, D) the series with its gaps filled, N times; the middle `level` of them is shaded where nothing was seen
    truth  (T, D) what was hidden
    """
    t = np.arange(len(seen))
    picture, panels = _panels(columns)
    for d, axes in enumerate(panels):
        gap = np.isnan(seen[:, d])
        if draws is not None and gap.any():
            low, median, high = np.quantile(draws[..., d], [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
            axes.fill_between(
                t, low, high, where=gap, color="tab:orange", alpha=0.3, linewidth=0, label=f"filled in: {level:.0%} of the draws"
            )
            axes.plot(t, np.where(gap, median, np.nan), color="tab:orange", label="their median")
        if truth is not None and gap.any():
            axes.plot(t[gap], truth[gap, d], ".", color="tab:red", markersize=5, label="was hidden")
        axes.plot(t, seen[:, d], ".", color="black", markersize=4, label="seen")
        axes.plot(t, mean[:, d], color="tab:blue", label="filtered")
        axes.set_ylabel(columns[d])
        axes.grid(alpha=0.3)
    return _finished(picture, panels, path)


def trajectories(series: Sequence[Numbers], titles: Sequence[str], columns: Sequence[str], path: Path) -> Path:
    """Series (T_n, D) below each other, the columns as lines of different colours."""
    picture = figure(9, 1.6 * len(series) + 0.5)
    for axes, x, title in zip(picture.subplots(len(series), 1, squeeze=False)[:, 0], series, titles, strict=True):
        for d in range(min(PANELS, len(columns))):
            axes.plot(x[:, d], linewidth=1, label=columns[d])
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    picture.axes[0].legend(loc="upper right", fontsize=8, ncols=PANELS)
    return save(picture, path)


def _finished(picture: Any, panels: list[Any], path: Path) -> Path:
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, ncols=5, frameon=False)
    panels[-1].set_xlabel("time")
    return save(picture, path)


def _panels(columns: Sequence[str]) -> tuple[Any, list[Any]]:
    count = min(PANELS, len(columns))
    picture = figure(9, 2.2 * count + 0.5)
    return picture, list(picture.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
