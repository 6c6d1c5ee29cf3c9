"""Columns brought to mean 0 and standard deviation 1, and what that does to a density.

y = (x - mean) / std,   p(x) = p(y) / prod_d std_d      over the d that were observed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from minirnn.data.kinds import Numbers


@dataclass(frozen=True, eq=False)
class Scaling:
    """One shift and one scale for each column.

    Args:
        mean, std: (D,) each; every std is above 0.
    """

    mean: Numbers
    std: Numbers

    @classmethod
    def of(cls, series: Sequence[Numbers]) -> Self:
        """The means and standard deviations of all series (T_n, D) together, without what is missing (NaN).

        A column that never changes keeps its scale, one without any value also its place.
        """
        values = np.concatenate(series)  # (S, D)
        seen = ~np.isnan(values)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, values, 0).sum(axis=0) / count
        std = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(axis=0) / count)
        return cls(mean, np.where(std > 1e-12 * np.abs(mean), std, 1.0))

    @classmethod
    def none(cls, columns: int) -> Self:
        """Leaves everything as it is."""
        return cls(np.zeros(columns), np.ones(columns))

    def apply(self, x: ArrayLike) -> Numbers:
        """y of x (..., D)."""
        return (np.asarray(x, np.float64) - self.mean) / self.std

    def undo(self, y: ArrayLike) -> Numbers:
        """x of y (..., D)."""
        return np.asarray(y, np.float64) * self.std + self.mean

    def log_jacobian(self, x: Numbers) -> float:
        """ln p(y) - ln p(x) of one series (T, D): the sum of ln std over what was observed."""
        return float((~np.isnan(x)).sum(axis=0) @ np.log(self.std))

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValueError, KeyError or TypeError for what `to_json` cannot have given."""
        mean, std = (np.asarray(stored[name], np.float64) for name in ("mean", "std"))
        if mean.ndim != 1 or mean.shape != std.shape or not (std > 0).all() or not np.isfinite(mean).all():
            raise ValueError("expected a mean and a standard deviation above 0 for each column")
        return cls(mean, std)
