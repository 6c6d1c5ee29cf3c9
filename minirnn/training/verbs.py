"""What a trained task can be asked for. A task offers a verb by having its method; the command line has a command of the same name.

Everything that is drawn comes from the generator that is given; files go to the folder that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from minirnn.device import Array
from minirnn.training.task import Split

if TYPE_CHECKING:
    from minirnn.study.examine import Subject


@dataclass(frozen=True)
class Caption:
    """What is said of a picture.

    Args:
        text: the caption.
        words: its words, as the model wrote them.
        score: what the search ranked it by.
        attention: (L or L + 1, h, w): where on the picture each word looked, the end included; None for a model without attention.
        image: (3, S, S) uint8: the picture as the model saw it.
    """

    text: str
    words: list[str]
    score: float
    attention: Array | None
    image: Array


@dataclass(frozen=True)
class Drawn:
    """Samples from a model: as texts, as files, or both."""

    texts: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """What comes next: numbers by column, one for each step, and pictures of them."""

    columns: dict[str, list[float]]
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """Which example is to be looked into.

    Args:
        given: a text, or the path of a picture or of a .csv file, as the model takes it; None for an example of the data.
        target: what the model should say of it; None for what it says by itself.
        split, index: which example of the data.
        steps: of a series the last frames that are looked at; of texts the most words.
        beam: width of the search for what the model says by itself.
        seed: of what is drawn.
    """

    given: str | None = None
    target: str | None = None
    split: Split = "test"
    index: int = 0
    steps: int = 100
    beam: int = 1
    seed: int = 0


class Captions(Protocol):
    def caption(self, paths: Sequence[Path], *, beam: int = 1, length_penalty: float = 1.0) -> list[Caption]:
        """One caption for each picture file. Raises MinirnnError for a file that is none."""
        ...


class Samples(Protocol):
    def sample(self, count: int, rng: np.random.Generator, folder: Path, *, temperature: float = 1.0, length: int | None = None) -> Drawn:
        """`count` samples from the model. A temperature below 1 draws what is more probable; `length` is that of a series."""
        ...


class Reconstructs(Protocol):
    def reconstruct(self, texts: Sequence[str]) -> list[str]:
        """What is left of each text after it went through the model's latent space."""
        ...


class Interpolates(Protocol):
    def interpolate(self, first: str, second: str, steps: int) -> list[str]:
        """`steps` texts on the straight line between two texts in the latent space, both ends included."""
        ...


class Forecasts(Protocol):
    def forecast(self, steps: int, folder: Path, rng: np.random.Generator, *, path: Path | None = None, level: float = 0.9) -> Forecast:
        """The next `steps` values of the test series, or of those in the .csv file at `path`, with intervals that hold `level`."""
        ...


class Studies(Protocol):
    def study(self, asked: Question) -> Subject:
        """The example that was asked for, ready to be taken apart. Raises MinirnnError where there is none, or it is not for this model."""
        ...
