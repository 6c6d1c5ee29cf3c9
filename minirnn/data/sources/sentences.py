"""Sentences of any UTF-8 text file, and of the captions of pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from minirnn.data.kinds import CaptionedPictures, Sentences
from minirnn.data.sources.parallel import numbered_lines, read_bytes, split_by_source
from minirnn.data.text import words
from minirnn.errors import MinirnnError

LEAST = 3  # different sentences: one for each split
TRAIN, HELD_OUT = 30_000, 2_000  # pictures of a split whose captions are taken, at the most

_END = r"[.!?…]+[\"'”’)\]]*"
_INSIDE = re.compile(rf"{_END}[ \t]+[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ]")  # a sentence ends and another begins on the same line
_AT_END = re.compile(rf"{_END}\s*$")
_BOUNDARY = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ])")
_INITIAL = re.compile(r"(?:^|\s)(?:[A-Z]|Mr|Mrs|Ms|Dr|St|e\.g|i\.e|etc|vs|cf|Prof)\.$")  # a full stop that ends no sentence


def load(path: str | os.PathLike[str], seed: int = 0) -> Sentences:
    """The different sentences of a file, 2 % for validation and 2 % for test (at least one, at most 2,000 each), drawn with `seed`."""
    name = os.fspath(path)
    train, valid, test = split(parse(read_bytes(path), path), seed)
    if not (train and valid and test):
        raise MinirnnError(f"{name}: too few sentences; at least {LEAST} different ones are needed, one for each split")
    return Sentences(name=Path(path).name, train=train, valid=valid, test=test, attribution=f"the file {name}")


def parse(data: bytes, path: str | os.PathLike[str]) -> list[str]:
    """The sentences of a UTF-8 text; `path` is its name in error messages.

    Where more sentences end inside of lines than at their ends, the text is running text: its lines are joined up to the next empty one,
    and cut where a full stop or the like is followed by a capital letter or a digit. Otherwise every line is a sentence.
    """
    name = os.fspath(path)
    lines = [(number, line.strip()) for number, line in numbered_lines(data, path)]
    if not lines:
        raise MinirnnError(f"{name}: the file is empty; expected one sentence a line, or running text")
    inside = sum(len(_INSIDE.findall(line)) for _, line in lines)
    if inside > sum(_AT_END.search(line) is not None for _, line in lines):
        return [sentence for paragraph in _paragraphs(lines) for sentence in cut(paragraph) if words(sentence)]
    for number, line in lines:
        if "\t" in line:
            raise MinirnnError(f"{name}, line {number}: there is a tab; expected sentences alone (cut -f1 takes the first column)")
        if not words(line):
            raise MinirnnError(f"{name}, line {number}: no word and no mark in {line!r}; expected one sentence a line")
    return [line for _, line in lines]


def cut(text: str) -> Iterator[str]:
    """The sentences of running text: they end at a full stop or the like before a capital letter or a digit, but not at `e.g.` or `J.`"""
    begun = ""
    for part in _BOUNDARY.split(" ".join(text.split())):
        begun = f"{begun} {part}" if begun else part
        if not _INITIAL.search(begun):
            yield begun
            begun = ""
    if begun:
        yield begun


def split(sentences: Iterable[str], seed: int, share: float = 0.02) -> tuple[list[str], list[str], list[str]]:
    """Different sentences for training, validation and test; those that differ in case and blanks alone are on the same side.

    Args:
        share: of the sentences for validation, and for test; at least one, at most 2,000 each.
    """
    parts = split_by_source(((sentence, "") for sentence in sentences), seed, share, share)
    train, valid, test = ([sentence for sentence, _ in part] for part in parts)
    return train, valid, test


def captions(pictures: CaptionedPictures) -> Sentences:
    """The first captions of pictures, each once; none of validation or test is in the training."""
    parts: list[list[str]] = []
    seen: set[str] = set()
    for part, most in ((pictures.train, TRAIN), (pictures.valid, HELD_OUT), (pictures.test, HELD_OUT)):
        found = dict.fromkeys(part.captions(number)[0] for number in range(min(most, len(part))))
        parts.append([caption for caption in found if caption not in seen])
        seen.update(found)
    train, valid, test = parts
    if not (train and valid and test):
        raise MinirnnError(f"{pictures.name}: too few different captions; validation and test need some that the training has not")
    return Sentences(pictures.name, train, valid, test, pictures.attribution)


def _paragraphs(lines: list[tuple[int, str]]) -> Iterator[str]:
    """Lines joined where no empty line is between them."""
    held: list[str] = []
    before = 0
    for number, line in lines:
        if held and number > before + 1:
            yield " ".join(held)
            held = []
        held.append(line)
        before = number
    yield " ".join(held)
