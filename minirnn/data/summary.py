"""What is in a data set, for people and as JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minirnn.data.sources.parallel import Pair, ParallelText
from minirnn.data.sources.registry import Source, source
from minirnn.data.text import words

MIN_COUNT = 2


@dataclass(frozen=True)
class Side:
    """One language of a data set.

    Args:
        language: its name.
        lengths: tokens in a training sentence: the shortest, the 25th, 50th and 75th percentile, and the longest.
        words: different words and marks in training.
        vocabulary: those of them that occur at least twice.
        unknown: the share of the test's tokens that are not among the vocabulary.
    """

    language: str
    lengths: tuple[int, int, int, int, int]
    words: int
    vocabulary: int
    unknown: float


@dataclass(frozen=True)
class Summary:
    """A data set in numbers, with examples.

    Args:
        name, attribution, note: as in `ParallelText`.
        pairs: how many in train, valid and test.
        sides: the source language and the target language.
        examples: pairs of the test.
    """

    name: str
    pairs: dict[str, int]
    sides: tuple[Side, Side]
    examples: list[Pair]
    attribution: str
    note: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ", ".join(f"{count:,} {split}" for split, count in self.pairs.items()) + " pairs"]
        for side in self.sides:
            shortest, quarter, median, three_quarters, longest = side.lengths
            lines.append(f"  {side.language}: {shortest} to {longest} tokens, half of them {quarter} to {three_quarters}, median {median}")
            known = f"{side.words:,} words, {side.vocabulary:,} seen twice or more"
            lines.append(f"    {known}; {side.unknown:.2%} of the test's tokens are not among these")
        lines += ["", *(f"  {english}\n    {french}" for english, french in self.examples), "", f"source: {self.attribution}"]
        return "\n".join([*lines, f"note: {self.note}"] if self.note else lines)


def summarise(text: ParallelText, examples: int = 8, seed: int = 0) -> Summary:
    """The numbers of a data set, and `examples` pairs of its test drawn with `seed`."""
    drawn = np.random.default_rng(seed).permutation(len(text.test))[:examples]
    return Summary(
        name=text.name,
        pairs={"train": len(text.train), "valid": len(text.valid), "test": len(text.test)},
        sides=(_side(text, 0), _side(text, 1)),
        examples=[text.test[i] for i in drawn],
        attribution=text.attribution,
        note=text.note,
    )


def show(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 0, examples: int = 8) -> Summary:
    """The summary of a named data set or a tab-separated file: what `minirnn data show NAME` prints."""
    return summarise(source(name, data_dir, seed), examples, seed)


def table(entries: Sequence[Source]) -> str:
    """Data sources as lines for people: what `minirnn data list` prints."""
    width = max(len(entry.name) for entry in entries)
    return "\n".join(
        f"{entry.name:{width}}  {entry.what}; {entry.size}\n{'':{width}}  {entry.licence}; {entry.origin}" for entry in entries
    )


def _side(text: ParallelText, side: int) -> Side:
    train = [words(pair[side]) for pair in text.train]
    counts = Counter(word for sentence in train for word in sentence)
    test = [word for pair in text.test for word in words(pair[side])]
    low, quarter, median, three_quarters, high = np.percentile([len(sentence) for sentence in train], [0, 25, 50, 75, 100])
    return Side(
        language=text.languages[side],
        lengths=(int(low), int(quarter), int(median), int(three_quarters), int(high)),
        words=len(counts),
        vocabulary=sum(count >= MIN_COUNT for count in counts.values()),
        unknown=sum(counts[word] < MIN_COUNT for word in test) / max(1, len(test)),
    )
