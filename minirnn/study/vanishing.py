"""Vanishing and exploding gradients of RNN, GRU and LSTM side by side, against what bounds them: one table and one picture.

    python -m minirnn.study.vanishing --gains 0.5 1 2 4

The recurrent weights of each layer are orthogonal matrices times a gain, one matrix a gate, so that |W| is the gain, and an RNN carries a
gradient over k steps with at most gain^k of its length (Pascanu, Mikolov, Bengio 2013, see `minirnn.study.jacobian`). All read the same
random sequences. The table has log10 of the median of |dh_t/dh_0| at some distances t, the picture all of it: lines are medians over the
sequences, bands their range, dashed the bound of the weights, dotted that of the gates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirnn import nn
from minirnn.errors import MinirnnError
from minirnn.nn import init
from minirnn.nn.module import Parameter
from minirnn.nn.recurrent import Layered
from minirnn.study.jacobian import Norms, jacobian_norms
from minirnn.training import pictures

KINDS: dict[str, type[Layered]] = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
GAINS = (0.5, 1.0, 2.0, 4.0)
LARGEST = 1e30  # gain whose weights a float32 can hold
FEATURES = 4
LN10 = float(np.log(10))
SHOWN = (1, 10, 25, 50, 100, 200, 500, 1000)  # distances in the table, as far as there are


def with_gain(kind: type[Layered], hidden: int, gain: float, seed: int) -> Layered:
    """A layer whose recurrent weights are `gain` times an orthogonal matrix for each gate."""
    rng = np.random.default_rng(seed)
    layer = kind(FEATURES, hidden, rng=rng)
    blocks = [init.orthogonal_(Parameter(np.empty((hidden, hidden), np.float32)), gain, rng).data for _ in range(layer.gates)]
    layer.load_state_dict(layer.state_dict() | {"weight_hh_l0": np.concatenate(blocks)})
    return layer


def run(gains: Sequence[float] = GAINS, *, hidden: int = 32, steps: int = 100, sequences: int = 8, seed: int = 0) -> dict[str, list[Norms]]:
    """Norms by the name of the cell, one for each gain, over `steps` steps of `sequences` random sequences."""
    x = 0.5 * np.random.default_rng(seed).standard_normal((steps + 1, sequences, FEATURES))
    return {
        name: list(jacobian_norms({str(gain): with_gain(kind, hidden, gain, seed) for gain in gains}, x).values())
        for name, kind in KINDS.items()
    }


def table(found: dict[str, list[Norms]], gains: Sequence[float]) -> str:
    """log10 of the median norm at some distances, for people."""
    last = int(next(iter(found.values()))[0].distance[-1])
    distances = sorted({*[t for t in SHOWN if t < last], last})
    lines = ["log10 |dh_t/dh_0|".ljust(24) + "".join(f"t = {t}".rjust(10) for t in distances)]
    for name, rows in found.items():
        for gain, norms in zip(gains, rows, strict=True):
            median = np.median(norms.log_norms, 0) / LN10
            lines.append(f"{name}, gain {gain:g}".ljust(24) + "".join(f"{median[t]:10.1f}" for t in distances))
            if norms.log_bound is not None:
                lines.append("  cannot exceed".ljust(24) + "".join(f"{norms.log_bound[t] / LN10:10.1f}" for t in distances))
    return "\n".join(lines)


def draw(found: dict[str, list[Norms]], gains: Sequence[float], path: Path) -> Path:
    """A panel for each cell, a colour for each gain."""
    picture = pictures.figure(12, 4.2)
    panels = picture.subplots(1, len(found), sharey=True)
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        for k, (gain, norms) in enumerate(zip(gains, rows, strict=True)):
            curve(axes, norms, pictures.COLORS[k % len(pictures.COLORS)], f"gain {gain:g}")
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(title=name, xlabel="t, steps back")
        axes.grid(alpha=0.3)
    longest = max(float(np.abs(norms.log_norms[np.isfinite(norms.log_norms)]).max()) for rows in found.values() for norms in rows) / LN10
    panels[0].set(ylabel="log10 of |dh_t/dh_0|", ylim=(-1.2 * longest - 1, 0.9 * longest + 1))
    panels[0].legend(fontsize=8, loc="lower left")
    picture.suptitle("How far gradients are carried: medians and ranges; dashed (|W| gamma)^t, dotted the bound of the gates", fontsize=10)
    return pictures.save(picture, path)


def curve(axes: Any, norms: Norms, color: str, label: str) -> None:
    """log10 of the norms over the distance: the median of the sequences, their range, and the bounds."""
    low, median, high = (np.maximum(f(norms.log_norms, 0) / LN10, -1e3) for f in (np.min, np.median, np.max))
    axes.fill_between(norms.distance, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(norms.distance, median, color=color, linewidth=1.6, label=label)
    if norms.log_bound is not None:
        axes.plot(norms.distance, norms.log_bound / LN10, "--", color=color, linewidth=1)
    else:
        axes.plot(norms.distance, np.median(norms.log_gate_bound, 0) / LN10, ":", color=color, linewidth=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minirnn.study.vanishing", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gains", metavar="G", type=float, nargs="+", default=GAINS, help="|W| of the layers (default: 0.5 1 2 4)")
    parser.add_argument("--hidden", metavar="H", type=int, default=32, help="units (default: 32)")
    parser.add_argument("--steps", metavar="T", type=int, default=100, help="(default: 100)")
    parser.add_argument("--sequences", metavar="N", type=int, default=8, help="(default: 8)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of weights and sequences (default: 0)")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("vanishing.png"), help="the picture (default: %(default)s)")
    given = parser.parse_args(arguments)
    for option, least in (("hidden", 1), ("steps", 1), ("sequences", 1), ("seed", 0)):
        if getattr(given, option) < least:
            parser.error(f"--{option} must be at least {least}, got {getattr(given, option)}")
    if not all(0 < gain <= LARGEST for gain in given.gains):
        parser.error(f"--gains must be above 0 and at most {LARGEST:g}, got {' '.join(map(str, given.gains))}")
    found = run(given.gains, hidden=given.hidden, steps=given.steps, sequences=given.sequences, seed=given.seed)
    print(table(found, given.gains))
    try:
        print(f"\n{draw(found, given.gains, given.out)}")
    except pictures.NoMatplotlib as error:
        print(f"no picture: {error}", file=sys.stderr)
    except (MinirnnError, OSError) as error:
        print(f"vanishing: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
