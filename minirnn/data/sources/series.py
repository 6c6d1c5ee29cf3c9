"""Any .csv file of numbers: a row for each step of time, a column for each thing that was measured.

A first row that is not all numbers names the columns. An empty cell, or nan, is a missing value. Several series of one file are set apart
by an empty line, or by a column named `series` whose cells name the series of their row. A column named date, time, year, t or index,
or a first one without a name, labels the rows and is not modelled. Cells are separated by commas, semicolons or tabs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minirnn.data.kinds import Numbers, Series
from minirnn.data.sources.parallel import numbered_lines, read_bytes
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

GROUP = "series"
LABELS = {"date", "time", "year", "t", "index"}
MISSING = {"", "nan", "na", "n/a", "null", "none"}
SHARE = 0.15  # of the series, or of the steps of each, for validation and again for the test
LEAST = 20  # steps of a series that is split in time


@dataclass(frozen=True)
class Table:
    """What stands in a file: the names of the columns, and (T_n, D) numbers for each series, NaN where one is missing."""

    columns: tuple[str, ...]
    series: list[Numbers]


def load(path: str | os.PathLike[str], seed: int = 0) -> Series:
    """The series of a file. Three series or more are split as they are, in an order that `seed` decides; fewer are split in time.

    Raises MinirnnError, with the line, for ragged rows and for what is not a number.
    """
    table = read(path)
    many = len(table.series) >= 3
    train, valid, test = _split_series(table.series, seed) if many else _split_time(table.series, path)
    values = np.concatenate(table.series)
    return Series(
        name=Path(path).name,
        train=train,
        valid=valid,
        test=test,
        observation="binary" if np.isin(values, (0, 1)).all() else "real",
        columns=table.columns,
        attribution=f"the file {os.fspath(path)}",
        note="" if many else "split in time: training has the first steps, then comes validation, then the test; each part starts afresh",
    )


def read(path: str | os.PathLike[str]) -> Table:
    """The columns and series of a file, in its order."""
    data = read_bytes(path)
    rows = _rows(data, path)
    if not rows:
        raise MinirnnError(f"{os.fspath(path)}: the file is empty; expected rows of numbers, separated by commas")
    names, body = _header(rows)
    if not body:
        raise MinirnnError(f"{os.fspath(path)}: there are no rows below the names {', '.join(names)}")
    lowered = [name.lower() for name in names]
    group = lowered.index(GROUP) if GROUP in lowered else None
    kept = [k for k, name in enumerate(lowered) if k != group and name not in LABELS]
    if not kept:
        raise MinirnnError(f"{os.fspath(path)}: there is no column of values beside {', '.join(names)}")
    found: dict[object, list[list[float]]] = {}
    for block, number, cells in body:
        if len(cells) != len(names):
            raise MinirnnError(f"{os.fspath(path)}, line {number}: {len(cells)} cells, but the first line has {len(names)}")
        key = block if group is None else cells[group]
        found.setdefault(key, []).append([_number(cells[k], names[k], number, path) for k in kept])
    series = [np.array(rows) for rows in found.values()]
    if all(np.isnan(values).all() for values in series):
        raise MinirnnError(f"{os.fspath(path)}: all values are missing")
    return Table(tuple(names[k] for k in kept), series)


def write(path: str | os.PathLike[str], columns: Sequence[str], series: Sequence[Numbers]) -> Path:
    """Series (T_n, D) as a file that `read` gives back as they are, with a column `series` that counts from 1; the path."""
    lines = [",".join([GROUP, *columns])]
    for number, values in enumerate(series, 1):
        lines += [",".join([str(number), *("" if math.isnan(x) else repr(x) for x in row)]) for row in np.asarray(values, float).tolist()]
    write_atomically(path, "\n".join(lines) + "\n")
    return Path(path)


Row = tuple[int, int, list[str]]  # the block between empty lines, the line's number, the cells


def _rows(data: bytes, path: str | os.PathLike[str]) -> list[Row]:
    lines = list(numbered_lines(data, path))
    separator = max(",;\t", key=lines[0][1].count) if lines else ","
    rows: list[Row] = []
    block, before = 0, 0
    for number, line in lines:
        block += before > 0 and number > before + 1
        before = number
        rows.append((block, number, [cell.strip().strip('"') for cell in line.split(separator)]))
    return rows


def _header(rows: list[Row]) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows of values."""
    first = rows[0][2]
    if all(_is_number(cell) for cell in first):
        return ([f"x{k + 1}" for k in range(len(first))] if len(first) > 1 else ["x"]), rows
    if any(_is_number(cell) for cell in first if cell):
        return [f"x{k + 1}" for k in range(len(first))], rows  # the cell that is no number is named with its line
    return [cell or (f"x{k + 1}" if k else "index") for k, cell in enumerate(first)], rows[1:]


def _is_number(cell: str) -> bool:
    try:
        return cell.lower() in MISSING or math.isfinite(float(cell))
    except ValueError:
        return False


def _number(cell: str, column: str, line: int, path: str | os.PathLike[str]) -> float:
    if not _is_number(cell):
        raise MinirnnError(
            f"{os.fspath(path)}, line {line}, column {column}: expected a number, or nothing where it is missing, not {cell!r}"
        )
    return math.nan if cell.lower() in MISSING else float(cell)


def _split_series(series: Sequence[Numbers], seed: int) -> tuple[list[Numbers], list[Numbers], list[Numbers]]:
    order = np.random.default_rng(seed).permutation(len(series))
    held = max(1, round(SHARE * len(series)))
    parts = order[2 * held :], order[held : 2 * held], order[:held]
    train, valid, test = ([series[k] for k in sorted(part)] for part in parts)
    return train, valid, test


def _split_time(series: Sequence[Numbers], path: str | os.PathLike[str]) -> tuple[list[Numbers], list[Numbers], list[Numbers]]:
    short = min(map(len, series))
    if short < LEAST:
        raise MinirnnError(
            f"{os.fspath(path)}: a series of {short} steps is too short to be split in time, which takes {LEAST}; "
            "with three series or more each would go into one part whole"
        )
    train, valid, test = list[Numbers](), list[Numbers](), list[Numbers]()
    for values in series:
        held = max(1, round(SHARE * len(values)))
        train.append(values[: -2 * held])
        valid.append(values[-2 * held : -held])
        test.append(values[-held:])
    return train, valid, test
