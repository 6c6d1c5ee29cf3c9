"""What is in a data set, for people and as JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirnn.data.kinds import CaptionedPictures, Sentences, Series
from minirnn.data.sources.parallel import ParallelText
from minirnn.data.sources.registry import shown
from minirnn.data.sources.source import Source
from minirnn.data.text import words

MIN_COUNT = 2
CAPTIONS = 2000  # the most training pictures whose captions are counted: they may have no end


@dataclass(frozen=True)
class Words:
    """Texts in numbers.

    Args:
        lengths: tokens in a training text: the shortest, the 25th, 50th and 75th percentile, and the longest.
        words: different words and marks in training.
        vocabulary: those of them that occur at least twice.
        unknown: the share of the test's tokens that are not among the vocabulary.
    """

    lengths: tuple[int, int, int, int, int]
    words: int
    vocabulary: int
    unknown: float

    @classmethod
    def of(cls, train: Sequence[str], test: Sequence[str]) -> Words:
        """The numbers of the texts for training and for test."""
        split = [words(text) for text in train]
        counts = Counter(word for text in split for word in text)
        seen = [word for text in test for word in words(text)]
        return cls(
            lengths=_quartiles([len(text) for text in split]),
            words=len(counts),
            vocabulary=sum(count >= MIN_COUNT for count in counts.values()),
            unknown=sum(counts[word] < MIN_COUNT for word in seen) / max(1, len(seen)),
        )

    def lines(self, name: str) -> list[str]:
        """Two lines for people, about the texts called `name`."""
        known = f"{self.words:,} words, {self.vocabulary:,} seen twice or more"
        return [f"  {name}: {_spread(self.lengths)} tokens", f"    {known}; {self.unknown:.2%} of the test's tokens are not among these"]


@dataclass(frozen=True)
class Summary:
    """A data set in numbers, with examples of its test.

    Args:
        name, attribution, note: as the data set has them.
        what: what it holds.
        sizes: how many in train, valid and test.
        texts: its texts by what they are: languages, sentences, captions.
        series: of series, the lengths (as in `Words`) and, by column, mean, standard deviation and share of missing values in training.
        examples: as lists of texts, such as a sentence and its translation, or a picture's number and its captions.
    """

    name: str
    what: str
    sizes: dict[str, int]
    attribution: str
    note: str
    examples: list[list[str]]
    texts: dict[str, Words]
    series: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The same as a dict that `json` can write."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ", ".join(f"{count:,} {split}" for split, count in self.sizes.items()) + f" {self.what}"]
        for name, found in self.texts.items():
            lines += found.lines(name)
        lines += [f"  {name}: {value}" for name, value in self.series.items()]
        lines += ["", *("\n    ".join(["  " + first, *rest]) for first, *rest in self.examples), "", f"source: {self.attribution}"]
        return "\n".join([*lines, f"note: {self.note}"] if self.note else lines)


@singledispatch
def summarise(data: Any, examples: int = 8, seed: int = 0) -> Summary:
    """The numbers of a data set, and `examples` of its test drawn with `seed`."""
    raise TypeError(f"summarise: expected a data set, got {type(data).__name__}")


@summarise.register
def _(data: ParallelText, examples: int = 8, seed: int = 0) -> Summary:
    sides = {name: Words.of(*([pair[k] for pair in part] for part in (data.train, data.test))) for k, name in enumerate(data.languages)}
    return _summary(data, [list(data.test[k]) for k in _drawn(data.test, examples, seed)], texts=sides)


@summarise.register
def _(data: Sentences, examples: int = 8, seed: int = 0) -> Summary:
    return _summary(data, [[data.test[k]] for k in _drawn(data.test, examples, seed)], texts={"sentences": Words.of(data.train, data.test)})


@summarise.register
def _(data: CaptionedPictures, examples: int = 8, seed: int = 0) -> Summary:
    train, test = ([c for k in range(min(len(part), CAPTIONS)) for c in part.captions(k)] for part in (data.train, data.test))
    chosen = [[f"picture {k}", *data.test.captions(int(k))] for k in _drawn(data.test, examples, seed)]
    return _summary(data, chosen, texts={"captions": Words.of(train, test)})


@summarise.register
def _(data: Series, examples: int = 8, seed: int = 0) -> Summary:
    rows = np.concatenate(data.train)
    series: dict[str, Any] = {"steps": _spread(_quartiles([len(x) for x in data.train])), "columns": len(data.columns)}
    for name, column in list(zip(data.columns, rows.T, strict=True))[:examples]:
        series[name] = f"mean {np.nanmean(column):.4g}, deviation {np.nanstd(column):.4g}, {np.isnan(column).mean():.1%} missing"
    chosen = [[f"series {k}", _short(data.test[k])] for k in _drawn(data.test, examples, seed)]
    return _summary(data, chosen, series=series)


def show(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0, examples: int = 8) -> Summary:
    """The summary of a named data set, a file or a folder: what `minirnn data show NAME` prints."""
    return summarise(shown(name, data_dir, seed), examples, seed)


def table(entries: Sequence[Source]) -> str:
    """Data sources as lines for people: what `minirnn data list` prints."""
    width = max(len(entry.name) for entry in entries)
    return "\n".join(
        f"{entry.name:{width}}  {entry.what}; {entry.size}\n{'':{width}}  {entry.licence}; {entry.origin}" for entry in entries
    )


def _summary(
    data: ParallelText | Sentences | CaptionedPictures | Series,
    examples: list[list[str]],
    texts: dict[str, Words] | None = None,
    series: dict[str, Any] | None = None,
) -> Summary:
    sizes = {split: len(getattr(data, split)) for split in ("train", "valid", "test")}
    return Summary(data.name, data.what, sizes, data.attribution, data.note, examples, texts or {}, series or {})


def _drawn(test: Any, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(len(test))[:count]


def _quartiles(lengths: Sequence[int]) -> tuple[int, int, int, int, int]:
    low, quarter, median, three_quarters, high = np.percentile(lengths, [0, 25, 50, 75, 100])
    return int(low), int(quarter), int(median), int(three_quarters), int(high)


def _spread(lengths: tuple[int, int, int, int, int]) -> str:
    shortest, quarter, median, three_quarters, longest = lengths
    return f"{shortest} to {longest}, half of them {quarter} to {three_quarters}, median {median}"


def _short(x: NDArray[np.float64], most: int = 4) -> str:
    """The first rows of a series: of binary ones what is on."""
    binary = bool(np.isin(x, (0, 1)).all()) and x.shape[1] > 1
    rows = [str(np.flatnonzero(row).tolist()) if binary else " ".join(f"{value:.4g}" for value in row[:most]) for row in x[:most]]
    return "; ".join(rows) + (" ..." if len(x) > most else "")
