"""Are the numbers right? All that a layer returns, and every gradient, against the float64 reference; and where it first goes wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minirnn.bench.cases import Array, Arrays, Case

AGREEMENT = {"float32": 1e-5, "float64": 1e-10}  # of any two kernels of one recurrence, on batches of any shape
GATE_ROUNDINGS = 16  # of the activations and what combines them, in one step of one unit, forward and backward


class Difference(NamedTuple):
    """How far one quantity is off: the largest difference, relative to the largest element of the quantity, and what is allowed."""

    quantity: str
    difference: float
    allowed: float
    place: str = ""  # of what is wrong, in words

    @property
    def right(self) -> bool:
        return self.difference <= self.allowed  # a NaN is not

    def fault(self) -> str:
        """A sentence for what is wrong."""
        if np.isnan(self.difference):
            return f"{self.quantity} is not finite, first {self.place}"
        return (
            f"{self.quantity} differs from the float64 reference by {self.difference:.2g} of its largest element "
            f"({self.allowed:.1g} is allowed), first {self.place}"
        )


def allowed(case: Case) -> float:
    """The relative error that rounding alone explains, and no less than any two kernels may differ by.

    The longest way from an input to a gradient passes T steps of each layer, and each step sums D + H products and applies the gates;
    gradients of weights are sums of as many terms as there are rows. So many roundings, each of half a unit in the last place
    and of either sign, add up like a random walk. (The worst case, in which all have one sign, is their number in place of its root.)
    """
    width = max(case.D, case.H * case.directions) if case.layers > 1 else case.D
    roundings = case.layers * case.T * (width + case.H + GATE_ROUNDINGS) + int(case.lengths.sum())
    return max(AGREEMENT[case.dtype], float(np.finfo(case.dtype).eps * np.sqrt(roundings)))


def compare(case: Case, found: Arrays, expected: Arrays) -> list[Difference]:
    """Every quantity. Raises ValueError where one is missing, is too many, or has another shape."""
    if set(found) != set(expected):
        raise ValueError(f"expected {', '.join(expected)}, got {', '.join(found)}")
    return [
        difference(name, found[name], right, allowed(case), _axes(name), name == "gradient of input") for name, right in expected.items()
    ]


def difference(name: str, found: Array, right: Array, bound: float, axes: tuple[str, ...], backwards: bool = False) -> Difference:
    """Of one quantity; `axes` name its axes, and `backwards` says that its computation goes from the last time step to the first."""
    if found.shape != right.shape:
        raise ValueError(f"{name} has the shape {found.shape}, expected {right.shape}")
    scale = np.abs(right).max(initial=0.0) or 1.0
    off = np.abs(found - right) / scale
    wrong = ~(off <= bound)
    worst = float(off.max(initial=0.0)) if np.isfinite(found).all() else float("nan")
    return Difference(name, worst, bound, _place(wrong if np.isfinite(worst) else ~np.isfinite(found), axes, backwards))


def _place(wrong: Array, axes: tuple[str, ...], backwards: bool) -> str:
    """Of the first that is wrong, in the order in which the pass goes through time."""
    places = np.argwhere(wrong)
    if not len(places):
        return ""
    if backwards:
        places = places[places[:, 0] == places[-1, 0]]
    return "at " + ", ".join(f"{axis} {index}" for axis, index in zip(axes, places[0].tolist(), strict=True))


def _axes(name: str) -> tuple[str, ...]:
    if name.startswith("output") or name == "gradient of input":
        return ("time step", "sequence", "unit" if name.startswith("output") else "feature")
    if "weight" in name:
        return ("row", "column")
    return ("row",) if "bias" in name else ("layer", "sequence", "unit")


def as_json(differences: list[Difference]) -> list[dict[str, Any]]:
    return [{**d._asdict(), "right": d.right, "fault": "" if d.right else d.fault()} for d in differences]
