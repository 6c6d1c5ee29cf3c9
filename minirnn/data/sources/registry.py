"""The data sources by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minirnn.data.fetch import DataFile, fetch
from minirnn.data.sources import cldr, multi30k, tatoeba, tsv
from minirnn.data.sources.parallel import ParallelText
from minirnn.errors import MinirnnError


@dataclass(frozen=True)
class Source:
    """A data set that `minirnn` knows.

    Args:
        name: what `--data` takes.
        what: one line about the contents.
        size: how many pairs, for people.
        licence: terms of use, for people.
        origin: where it comes from, for people.
        files: what has to be on this machine; none for a source that is made here.
        load: from a data folder and a seed to the pairs.
    """

    name: str
    what: str
    size: str
    licence: str
    origin: str
    files: tuple[DataFile, ...]
    load: Callable[[str | None, int], ParallelText]


_SOURCES = {
    entry.name: entry
    for entry in (
        Source(
            name="cldr",
            what="English to French names, dates, times, units, amounts and lists",
            size="about 36,000 phrases, 3,000 of them held out",
            licence="Unicode License v3 (CLDR), BSD (Babel, emoji)",
            origin="made on this machine from the packages Babel and emoji",
            files=(),
            load=cldr.load,
        ),
        Source(
            name="tatoeba",
            what="English to French everyday sentences",
            size="142,787 pairs, 2.9 MB",
            licence="CC BY 2.0 FR",
            origin="tatoeba.org by way of manythings.org/anki",
            files=(tatoeba.FILE,),
            load=tatoeba.load,
        ),
        Source(
            name="multi30k",
            what="English to French descriptions of photographs",
            size="30,014 pairs, 1.2 MB",
            licence="research and education",
            origin="github.com/multi30k/dataset",
            files=tuple(file for pair in multi30k.FILES.values() for file in pair),
            load=multi30k.load,
        ),
    )
}


def all_sources() -> list[Source]:
    """Every data set that has a name."""
    return list(_SOURCES.values())


def source(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> ParallelText:
    """The pairs of a named data set, or of a tab-separated file.

    Args:
        name: one of `all_sources()`, or the path of a UTF-8 file of source, tab, target (`.gz` too).
        data_dir: a folder with downloaded files; also $MINIRNN_DATA and the cache are searched.
        seed: of whatever is drawn: the phrases of `cldr`, the splits of `tatoeba` and of files.
    """
    if name in _SOURCES:
        return _SOURCES[name].load(None if data_dir is None else os.fspath(data_dir), seed)
    if Path(name).is_dir():
        raise MinirnnError(f"{name} is a folder; a tab-separated file or the name of a data set is needed: {', '.join(_SOURCES)}")
    if _looks_like_path(name):
        return tsv.load(name, seed)
    raise _unknown(name)


def get(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Makes sure that the files of a data set are on this machine and whole; gives their places, none for a set that is made here."""
    if name not in _SOURCES:
        raise _unknown(name)
    return [fetch(file, data_dir) for file in _SOURCES[name].files]


def _looks_like_path(name: str) -> bool:
    return Path(name).is_file() or os.sep in name or "/" in name or name.endswith((".tsv", ".txt", ".gz"))


def _unknown(name: str) -> MinirnnError:
    close = difflib.get_close_matches(name.lower(), _SOURCES, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else "."
    return MinirnnError(f"unknown data set {name!r}{hint} There are {', '.join(_SOURCES)}, and any tab-separated file by its path")
