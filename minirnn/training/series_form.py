"""What a model of series keeps of its data, so that it is of use without them: names, units, and when a series begins."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from minirnn.data.kinds import Numbers, Series
from minirnn.data.scaling import Scaling
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.training import extras

FORM = "series.json"


@dataclass(frozen=True)
class Form:
    """What a model has to know of its data to be of use without them: see `Series`; `length` is the median of the training series."""

    columns: tuple[str, ...]
    scaling: Scaling
    length: int
    start: float
    period: float

    @classmethod
    def of(cls, data: Series) -> Self:
        scaling = Scaling.of(data.train) if data.observation == "real" else Scaling.none(len(data.columns))
        return cls(data.columns, scaling, int(np.median([len(x) for x in data.train])), data.start, data.period)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "scaling": self.scaling.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        scaling, columns = Scaling.from_json(stored["scaling"]), tuple(stored["columns"])
        if len(columns) != len(scaling.mean):
            raise ValueError(f"{len(columns)} columns, but {len(scaling.mean)} means")
        return cls(columns, scaling, int(stored["length"]), float(stored["start"]), float(stored["period"]))

    def save(self, folder: Path) -> None:
        write_atomically(folder / FORM, json.dumps(self.to_json()))

    @classmethod
    def load(cls, folder: Path, columns: int) -> Self:
        """The form in the folder of a run. Raises MinirnnError where it is missing, damaged, or not one of so many columns."""
        path = folder / FORM
        form = extras.read(path, cls.from_json)
        extras.check(path, "columns", len(form.columns), columns)
        return form

    def read(self, path: Path) -> Numbers:
        """The one series of a .csv file (T, D), in the order of the columns here; other names do where there are as many columns."""
        table = csv.read(path)
        if len(table.series) != 1:
            raise MinirnnError(f"{path} holds {len(table.series)} series; one is needed")
        (values,) = table.series
        if set(self.columns) <= set(table.columns):
            return values[:, [table.columns.index(name) for name in self.columns]]
        if len(table.columns) != len(self.columns):
            expected = f"{len(self.columns)} ({', '.join(self.columns[:8])}{', ...' if len(self.columns) > 8 else ''})"
            raise MinirnnError(f"{path} has {len(table.columns)} columns of values, the model was made for {expected}")
        return values

    def intervals(self, middle: Numbers, low: Numbers, high: Numbers, level: float) -> dict[str, list[float]]:
        """A forecast (L, D) and the ends of the intervals that hold `level` of it, by titles of columns."""
        ends = [f"{(1 - level) / 2:.4g}", f"{(1 + level) / 2:.4g}"]
        columns: dict[str, list[float]] = {}
        for d, name in enumerate(self.columns):
            columns |= {name: middle[:, d].tolist(), f"{name} {ends[0]}": low[:, d].tolist(), f"{name} {ends[1]}": high[:, d].tolist()}
        return columns
