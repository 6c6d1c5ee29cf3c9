"""The data sources by name, and files and folders by their path."""

from __future__ import annotations

import difflib
import importlib
import os
from pathlib import Path
from typing import Any, TypeVar, overload

from minirnn.data.fetch import fetch
from minirnn.data.kinds import CaptionedPictures, Sentences, Series
from minirnn.data.sources.parallel import ParallelText
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

Kind = TypeVar("Kind")

_MODULES = (
    "cldr",
    "tatoeba",
    "multi30k",
    "docstrings",
    "scenes",
    "pendulum",
    "lgssm",
    "jsb",
    "chorales",
    "nile",
    "robot",
)  # each has a SOURCE
_PATHS: dict[type[Any], tuple[str, str]] = {  # the module whose `load(path, seed)` reads what a user has, and what that is
    ParallelText: ("tsv", "a tab-separated file of source and target"),
    Sentences: ("sentences", "a text file"),
    CaptionedPictures: ("picture_folder", "a folder with pictures and captions.txt"),
    Series: ("series", "a .csv file of numbers"),
}
_ENDINGS = {".tsv": ParallelText, ".gz": ParallelText, ".txt": Sentences, ".csv": Series}


def all_sources() -> list[Source]:
    """Every data set that has a name."""
    return [_module(name).SOURCE for name in _MODULES]


@overload
def source(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> ParallelText: ...


@overload
def source(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0, *, kind: type[Kind]) -> Kind: ...


def source(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0, *, kind: type[Any] = ParallelText) -> Any:
    """A named data set, or what is found at a path.

    Args:
        name: one of `all_sources()`, or a path: of a tab-separated file for `ParallelText`, of a text file for `Sentences`, of a folder for
            `CaptionedPictures`, of a .csv file for `Series`.
        data_dir: a folder with downloaded files; also $MINIRNN_DATA and the cache are searched.
        seed: of whatever is drawn: what is made here, and splits.
        kind: the kind of data that is needed.

    Raises MinirnnError where there is no such data set, or it is of another kind.
    """
    known = _named(name)
    if known is not None:
        if kind not in known.loaders:
            raise MinirnnError(f"{name} holds {next(iter(known.loaders)).what}, but {kind.what} are needed: {_choice(kind)}")
        return known.loaders[kind](None if data_dir is None else os.fspath(data_dir), seed)
    if not _looks_like_path(name):
        raise _unknown(name, kind)
    if Path(name).is_dir() != (kind is CaptionedPictures) and Path(name).exists():
        raise MinirnnError(f"{name} is a {'folder' if Path(name).is_dir() else 'file'}, but {kind.what} are needed: {_choice(kind)}")
    return _module(_PATHS[kind][0]).load(name, seed)


def shown(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0) -> Any:
    """A data set as the kind that it is in the first place; a file's kind is what its name ends with."""
    known = _named(name)
    if known is not None:
        return source(name, data_dir, seed, kind=next(iter(known.loaders)))
    kind = CaptionedPictures if Path(name).is_dir() else _ENDINGS.get(Path(name).suffix, ParallelText)
    return source(name, data_dir, seed, kind=kind)


def get(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Makes sure that the files of a data set are on this machine and whole; gives their places, none for a set that is made here."""
    known = _named(name)
    if known is None:
        raise _unknown(name)
    return [fetch(file, data_dir) for file in known.files]


def _module(name: str) -> Any:
    return importlib.import_module(f"minirnn.data.sources.{name}")


def _named(name: str) -> Source | None:
    return next((known for known in all_sources() if known.name == name), None)


def _looks_like_path(name: str) -> bool:
    return Path(name).exists() or os.sep in name or "/" in name or Path(name).suffix in _ENDINGS


def _choice(kind: type[Any]) -> str:
    """The data sets of a kind, as one would list them in a sentence."""
    return ", ".join([*(known.name for known in all_sources() if kind in known.loaders), f"or {_PATHS[kind][1]} by its path"])


def _unknown(name: str, kind: type[Any] | None = None) -> MinirnnError:
    names = [known.name for known in all_sources()]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else "."
    choice = ", ".join(names) if kind is None else _choice(kind)
    return MinirnnError(f"unknown data set {name!r}{hint} There are {choice}")
