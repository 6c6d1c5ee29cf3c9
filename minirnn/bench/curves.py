"""Lines in a picture that are named where they end, and no legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LINE_HEIGHT = 0.06  # of the axes: how far two names must be apart
ROOM = 0.32  # of the axes' width, on the right, for the names


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names beside the ends (x, y, name, colour) of lines, moved apart where they would overlap. Call it last: it widens the axes."""
    if not ends:
        return
    low, high = axes.get_xlim()
    logarithmic = axes.get_xscale() == "log"
    axes.set_xlim(low, high * (high / low) ** ROOM if logarithmic else high + ROOM * (high - low))
    into = axes.transData + axes.transAxes.inverted()
    placed = sorted(((*into.transform((x, y)), name, color) for x, y, name, color in ends), key=lambda end: end[1])
    height = spread_out([float(y) for _, y, _, _ in placed], LINE_HEIGHT)
    for (x, y, name, color), at in zip(placed, height, strict=True):
        axes.annotate(
            name,
            (x, y),
            (x + 0.03, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=color,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.5},
        )


def spread_out(places: Sequence[float], apart: float) -> list[float]:
    """Places in rising order, moved as little as this simple rule knows so that neighbours are `apart`: each pushes the next one up, and
    then all that were pushed together move down to where their middle was."""
    groups: list[tuple[list[float], float]] = []  # what each group wanted, and its lowest place
    for place in places:
        wanted, start = [place], place
        while groups and groups[-1][1] + apart * len(groups[-1][0]) > start:
            before, _ = groups.pop()
            wanted = before + wanted
            start = sum(wanted) / len(wanted) - apart * (len(wanted) - 1) / 2
        groups.append((wanted, start))
    return [start + apart * k for wanted, start in groups for k in range(len(wanted))]
