"""Pictures of a run. Matplotlib is an extra, loaded here alone, and never opens a window."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

DPI = 120
# Blue, vermilion, green, purple, orange, sky: told apart by colour-blind readers too (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class NoMatplotlib(MinirnnError):
    """Matplotlib, an extra, is not installed."""


def figure(width: float, height: float) -> Any:
    """An empty Matplotlib figure, in inches. Raises NoMatplotlib where Matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoMatplotlib('pictures need Matplotlib: pip install "minirnn[demo]"') from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(picture: Any, path: Path) -> Path:
    """Write a figure as PNG, all of it or nothing; the path."""
    content = io.BytesIO()
    picture.savefig(content, format="png")
    write_atomically(path, content.getvalue())
    return path


def curve(rows: Sequence[dict[str, Any]], metric: str, path: Path) -> Path:
    """The training loss and the validation score over the updates."""
    trained = [row for row in rows if "loss" in row]
    judged = [row for row in rows if "valid" in row]
    picture = figure(7, 4)
    loss_axis = picture.subplots()
    loss_axis.plot([row["step"] for row in trained], [row["loss"] for row in trained], color="tab:blue", linewidth=1)
    loss_axis.set(xlabel="updates", ylabel="training loss")
    loss_axis.yaxis.label.set_color("tab:blue")
    loss_axis.grid(alpha=0.3)
    score_axis = loss_axis.twinx()
    score_axis.plot([row["step"] for row in judged], [row["valid"][metric] for row in judged], "o-", color="tab:orange", markersize=4)
    best = [row for row in judged if row["best"]][-1:]
    score_axis.plot([row["step"] for row in best], [row["valid"][metric] for row in best], "*", color="tab:red", markersize=12)
    score_axis.set_ylabel(f"validation {metric} (star: best)", color="tab:orange")
    return save(picture, path)


def alignment(weights: Any, source: Sequence[str], target: Sequence[str], path: Path) -> Path:
    """A heat map of attention: `weights` (L, T), a row for each output piece over the input pieces; each row sums to 1."""
    picture = figure(max(3.0, 0.45 * len(source) + 1.5), max(2.5, 0.35 * len(target) + 1.2))
    axes = picture.subplots()
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    picture.colorbar(image, ax=axes, label="attention")
    return save(picture, path)
