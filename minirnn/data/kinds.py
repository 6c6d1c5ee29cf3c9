"""What a data set may be: sentence pairs (`ParallelText`, beside how they are read), sentences, pictures with captions, or series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Sentences:
    """Sentences for training, validation and test.

    Args:
        name: of the source, or of the file.
        attribution: whom to credit and under which terms; to be shown with the data.
        note: what one should know before one trusts a score on it; may be empty.
    """

    what: ClassVar[str] = "sentences"

    name: str
    train: list[str]
    valid: list[str]
    test: list[str]
    attribution: str
    note: str = ""


class Pictures(Protocol):
    """Pictures by number, each with its captions; they may be composed, or read, when they are asked for."""

    def __len__(self) -> int: ...

    def images(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, 3, S, S): red, green and blue from 0 to 255. A number has the same picture each time."""
        ...

    def captions(self, number: int) -> tuple[str, ...]:
        """What may rightly be said of a picture; at least one caption."""
        ...


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures with captions for training, validation and test.

    Args:
        name, attribution, note: as in `Sentences`.
        slots: what a caption says, as {"object": "dog", "place": "top left corner", ...}; whatever it does not say is left out. None where
            captions are free text.
        endless: whether `train` has new pictures for numbers past its length, so that no epoch need repeat one.
    """

    what: ClassVar[str] = "pictures with captions"

    name: str
    train: Pictures
    valid: Pictures
    test: Pictures
    attribution: str
    note: str = ""
    slots: Callable[[str], dict[str, str]] | None = None
    endless: bool = False


@dataclass(frozen=True)
class Series:
    """Series (T_n, D) of numbers, of different lengths but one width, for training, validation and test.

    Args:
        name, attribution, note: as in `Sentences`.
        observation: "real" numbers, where NaN is a missing one, or "binary" ones, 0 or 1.
        columns: D names.
        start: the time of the first row, as a year; the time of row t is start + t period.
        truth: the parameters of the linear Gaussian state-space model that made the series, by their names there; None for all others.
    """

    what: ClassVar[str] = "series"

    name: str
    train: list[Numbers]
    valid: list[Numbers]
    test: list[Numbers]
    observation: Literal["real", "binary"]
    columns: tuple[str, ...]
    attribution: str
    note: str = ""
    start: float = 0.0
    period: float = 1.0
    truth: Mapping[str, Any] | None = None
