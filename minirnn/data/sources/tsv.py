"""Any tab-separated UTF-8 file: source, tab, target, and whatever follows a second tab."""

from __future__ import annotations

import os
from pathlib import Path

from minirnn.data.sources.parallel import Pair, ParallelText, numbered_lines, read_bytes, split_by_source
from minirnn.data.text import words
from minirnn.errors import MinirnnError

LEAST = 3  # pairs with different sources: one for each split


def load(path: str | os.PathLike[str], seed: int = 0) -> ParallelText:
    """The pairs of a file, 2 % of its source sentences for validation and 2 % for test (at least one, at most 2,000 each)."""
    parts = split_by_source(parse(read_bytes(path), path), seed)
    if not all(parts):
        raise MinirnnError(f"{os.fspath(path)}: too few pairs; at least {LEAST} different source sentences are needed, one for each split")
    return ParallelText(
        name=Path(path).name,
        languages=("source", "target"),
        train=parts.train,
        valid=parts.valid,
        test=parts.test,
        attribution=f"the file {os.fspath(path)}",
    )


def parse(data: bytes, path: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of a tab-separated text; `path` is its name in error messages."""
    pairs = []
    for number, line in numbered_lines(data, path):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2:
            raise MinirnnError(f"{os.fspath(path)}, line {number}: expected source, tab, target; found no tab in {_short(line)}")
        for side, field in zip(("source", "target"), fields, strict=False):
            if not _says_something(field):
                raise MinirnnError(f"{os.fspath(path)}, line {number}: the {side} is empty in {_short(line)}")
        pairs.append((fields[0], fields[1]))
    if not pairs:
        raise MinirnnError(f"{os.fspath(path)}: the file is empty; expected lines of source, tab, target")
    return pairs


def _says_something(field: str) -> bool:
    """Whether there is a word or a mark, and not only what cannot be seen; splitting into words is the slow way to find out."""
    return any(map(str.isalnum, field)) or bool(words(field))


def _short(line: str, most: int = 60) -> str:
    return repr(line if len(line) <= most else line[: most - 1] + "…")
