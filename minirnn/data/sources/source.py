"""What is known of a data set before it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minirnn.data.fetch import DataFile

Load = Callable[[str | None, int], Any]  # a data folder and a seed -> a data set


@dataclass(frozen=True)
class Source:
    """A data set that has a name.

    Args:
        name: what `--data` takes.
        what: one line about the contents.
        size: how many examples, for people.
        licence: terms of use, for people.
        origin: where it comes from, for people.
        loaders: by the kind of data (`ParallelText`, `Sentences`, `CaptionedPictures`, `Series`), the function that gives it; the first is
            the one that is shown.
        files: what has to be on this machine; none for a source that is made here.
    """

    name: str
    what: str
    size: str
    licence: str
    origin: str
    loaders: Mapping[type[Any], Load]
    files: tuple[DataFile, ...] = ()
