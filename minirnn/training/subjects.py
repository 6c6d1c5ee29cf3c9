"""What the tasks have in common when one of their examples is looked into: words as labels, and what is said of a bad choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn.data.vocabulary import BOS, EOS, SPECIALS, UNK, Vocabulary
from minirnn.decoding import Hypothesis
from minirnn.device import Array
from minirnn.errors import MinirnnError
from minirnn.study.example import Axis
from minirnn.training.verbs import Question

BEGIN, END, UNKNOWN = SPECIALS[BOS], SPECIALS[EOS], SPECIALS[UNK]
BEFORE = "words before"  # what a decoder is given


def chosen(part: Sequence[Any], asked: Question, what: str) -> Any:
    """The example of a split that was asked for."""
    return part[number(len(part), asked, what)]


def number(count: int, asked: Question, what: str) -> int:
    """The number of the example that was asked for, of `count` that a split has."""
    if not asked.index < count:
        raise MinirnnError(f"the {asked.split} split has {count} {what}, numbered from 0: there is no number {asked.index}")
    return asked.index


def refuse_target(asked: Question, model: str) -> None:
    if asked.target is not None:
        raise MinirnnError(f"--target is for models that say something of an input; {model} is given all there is by --input")


def encoded(text: str, vocabulary: Vocabulary, asked: Question, what: str) -> tuple[Array, list[str]]:
    """The numbers of a text and their labels; a word that is not known as "zebra <unk>"."""
    ids, pieces = vocabulary.encode(text), vocabulary.pieces(text)
    if not len(ids):
        raise MinirnnError(f"{what}: there is nothing to read in {text!r}: no word and no mark")
    if len(ids) > asked.steps:
        raise MinirnnError(f"{what} has {len(ids)} words, and a page takes {asked.steps}: shorten it, or say --steps {len(ids)}")
    if len(pieces) != len(ids):  # an unknown piece that was cut further
        pieces = [vocabulary.piece(int(k)) for k in ids]
    return ids, [piece if k != UNK or piece == UNKNOWN else f"{piece} {UNKNOWN}" for k, piece in zip(ids, pieces, strict=True)]


def own(found: Hypothesis) -> str:
    """What a page says of words that the model has found itself."""
    return "The words are the model's own" + ("." if found.finished else ", broken off where they did not end.")


def spelt(ids: Array, vocabulary: Vocabulary) -> list[str]:
    """The pieces of numbers."""
    return [vocabulary.piece(int(k)) for k in ids]


def before(labels: Sequence[str]) -> Axis:
    """What a decoder is given while it says `labels` and an end."""
    return Axis(BEFORE, "tokens", [BEGIN, *labels])


def patches(image: Array, side: int) -> Axis:
    """A picture (3, S, S) in side x side patches."""
    labels = [f"row {row + 1}, column {column + 1}" for row in range(side) for column in range(side)]
    return Axis("picture", "patches", labels, image=np.asarray(image), grid=(side, side))
