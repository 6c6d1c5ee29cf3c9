"""Pictures of a latent space: what each dimension carries, how the KL went in training, and how models compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.device import Array
from minirnn.training.pictures import figure, save

COLLAPSED = 0.1  # nats of KL, below which z says nothing


def dimensions(kl: Array, active: Array, path: Path) -> Path:
    """Bars: the mean KL (Z,) of every dimension, the largest first; those that are not active (Z,) are grey."""
    order = np.argsort(-kl, kind="stable")
    picture = figure(7, 3.5)
    axes = picture.subplots()
    axes.bar(range(len(kl)), kl[order], color=["tab:blue" if active[d] else "lightgrey" for d in order])
    axes.set(xlabel="dimensions of z", ylabel="KL, nats", title=f"KL {kl.sum():.2f} nats, {int(active.sum())} of {len(kl)} units active")
    axes.set_xticks([])
    axes.grid(alpha=0.3, axis="y")
    return save(picture, path)


def annealing(rows: Sequence[Mapping[str, Any]], beta: Callable[[int], float], path: Path) -> Path:
    """KL, reconstruction and beta over the updates, from the validations among the lines of metrics."""
    judged = [row for row in rows if "valid" in row]
    steps = [row["step"] for row in judged]
    picture = figure(7, 5)
    upper, lower = picture.subplots(2, 1, sharex=True)
    upper.plot(steps, [row["valid"]["kl"] for row in judged], "o-", color="tab:blue", markersize=4)
    upper.set_ylabel("KL, nats", color="tab:blue")
    weight = upper.twinx()
    every = np.linspace(0, steps[-1] if steps else 1, 300)
    weight.plot(every, [beta(int(step)) for step in every], color="tab:grey", linewidth=1)
    weight.set_ylabel("beta", color="tab:grey")
    lower.plot(steps, [row["valid"]["reconstruction"] for row in judged], "o-", color="tab:orange", markersize=4, label="reconstruction")
    lower.plot(steps, [row["valid"]["loss"] for row in judged], "o-", color="tab:green", markersize=4, label="with the KL: -ELBO")
    lower.set(xlabel="updates", ylabel="nats per sentence")
    lower.legend()
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return save(picture, path)


def collapse(
    curves: Mapping[str, Sequence[tuple[int, float]]], parts: Mapping[str, tuple[float, float]], exact: float | None, path: Path
) -> Path:
    """Models by name: the KL over the updates, with the line below which z is unused, and what the negative ELBO consists of.

    curves  (update, KL) of each validation
    parts   reconstruction and KL at the end
    exact   the negative log-likelihood of a language model, None for no line
    """
    picture = figure(10, 4)
    left, right = picture.subplots(1, 2)
    for name, curve in curves.items():
        left.plot([step for step, _ in curve], [max(kl, COLLAPSED / 1000) for _, kl in curve], "o-", markersize=3, label=name)
    left.axhline(COLLAPSED, color="black", linestyle="--", linewidth=1, label="collapsed below")
    left.set(xlabel="updates", ylabel="KL, nats", yscale="log")
    left.legend(fontsize="small")
    left.grid(alpha=0.3)
    reconstruction, kl = np.array(list(parts.values())).reshape(-1, 2).T
    right.barh(list(parts), reconstruction, color="tab:orange", label="reconstruction")
    right.barh(list(parts), kl, left=reconstruction, color="tab:blue", label="KL")
    if exact is not None:
        right.axvline(exact, color="black", linestyle="--", linewidth=1, label="language model")
    right.set(xlabel="-ELBO, nats per sentence", xlim=(0.8 * min([*reconstruction, exact or np.inf]), None))
    right.invert_yaxis()
    right.legend(fontsize="small")
    return save(picture, path)
