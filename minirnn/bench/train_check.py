"""Whether two libraries compute the same losses and gradients, before anything is timed.

Losses are sums of many terms, and agree to 100 eps, relative, at each of the first updates. Gradients agree to half of the digits, in the
norm of each parameter's: where rounding moves a number across a rectifier's zero, its gradient jumps, and of n numbers eps n do, which
moves the norm by the root of eps. In float64 they are compared at the first and at the last of the updates; in float32 at the first, since
Adam's steps have the sign of gradients that are zero but for rounding, and from there on the weights differ by such steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirnn.bench.train_sides import Trace
from minirnn.device import Array

LOSSES = 100.0  # eps
LEAST = 1e-6  # of the norm of all gradients: below this the gradient of a parameter is rounding alone


class Difference(NamedTuple):
    """The largest, relative."""

    losses: float
    gradients: float


def compare(name: str, dtype: str, ours: Trace, theirs: Trace) -> Difference:
    """Raises RuntimeError that names what differs."""
    eps = float(np.finfo(dtype).eps)
    losses = [abs(a - b) / abs(b) for a, b in zip(ours.losses, theirs.losses, strict=True)]
    for k, difference in enumerate(losses):
        if not difference <= LOSSES * eps:
            raise RuntimeError(
                f"{name}, {dtype}: the losses at update {k + 1} are {ours.losses[k]:.9g} and {theirs.losses[k]:.9g} in PyTorch; not timed"
            )
    gradients = 0.0
    for when, a, b in zip(("first", "last"), ours.gradients, theirs.gradients, strict=True):
        if when == "first" or dtype == "float64":
            worst, difference = _worst(name, a, b)
            if not difference <= eps**0.5:
                raise RuntimeError(f"{name}, {dtype}: the gradients of {worst} at the {when} update differ by {difference:.2g}; not timed")
            gradients = max(gradients, difference)
    return Difference(max(losses), gradients)


def _worst(name: str, ours: dict[str, Array], theirs: dict[str, Array]) -> tuple[str, float]:
    """The parameter whose gradients differ most, and by how much of their norm."""
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"{name}: only one library has gradients of {', '.join(sorted(ours.keys() ^ theirs.keys()))}; not timed")
    norms = {key: float(np.linalg.norm(g)) for key, g in theirs.items()}
    least = LEAST * float(np.linalg.norm(list(norms.values())))
    differences = {key: float(np.linalg.norm(ours[key] - g)) / max(norms[key], least) for key, g in theirs.items()}
    worst = max(differences, key=lambda key: np.inf if differences[key] != differences[key] else differences[key])
    return worst, differences[worst]
