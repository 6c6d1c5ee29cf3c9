"""Scores of captions against references: BLEU, exact matches, and what the captions say slot by slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from minirnn.data import words
from minirnn.data.kinds import Pictures
from minirnn.device import Array
from minirnn.errors import MinirnnError

References: TypeAlias = Sequence[Sequence[str]]  # of each picture all that may rightly be said
Slots: TypeAlias = Callable[[str], dict[str, str]]

OBJECTS = ("object", "other object")  # the slots that name what is on a picture
CHUNK = 1000  # training pictures that are compared at once


def agrees(caption: str, references: Sequence[str]) -> bool:
    """Whether a caption is one of the references, word for word."""
    return words(caption) in [words(reference) for reference in references]


def text_scores(captions: Sequence[str], references: References) -> dict[str, Any]:
    """BLEU-1 to BLEU-4 and exact matches in percent, of lower-cased text split into words and marks, against all references."""
    bleu = sacrebleu()
    hypotheses = [" ".join(words(caption)) for caption in captions]
    spread = [[" ".join(words(r[k])) if k < len(r) else None for r in references] for k in range(max(map(len, references)))]
    found: dict[str, Any] = {}
    for n in range(1, 5):
        metric = bleu(tokenize="none", force=True, max_ngram_order=n)
        found[f"bleu{n}"] = metric.corpus_score(hypotheses, spread).score
    found["exact"] = 100 * float(np.mean([agrees(c, r) for c, r in zip(captions, references, strict=True)]))
    return found


def slot_scores(captions: Sequence[str], references: References, slots: Slots) -> dict[str, float]:
    """For each slot that references fill, in how many percent of them the caption fills it alike; "objects" is both slots of objects.

    A caption is held against that one of its picture's references with which it shares most slots.
    """
    filled: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for caption, choices in zip(captions, references, strict=True):
        said = slots(caption)
        wanted = max((slots(reference) for reference in choices), key=lambda r: sum(said.get(name) == value for name, value in r.items()))
        filled.update(wanted.keys())
        right.update(name for name, value in wanted.items() if said.get(name) == value)
    named = [name for name in OBJECTS if filled[name]]
    total = sum(filled[name] for name in named)
    scores = {"objects": 100 * sum(right[name] for name in named) / total} if total else {}
    return scores | {name: 100 * right[name] / filled[name] for name in filled}


def object_pair(caption: str, slots: Slots) -> frozenset[str] | None:
    """The two objects that a caption names, or None for fewer."""
    said = slots(caption)
    return frozenset(said[name] for name in OBJECTS) if all(name in said for name in OBJECTS) else None


def majority(pictures: Pictures) -> str:
    """The caption that occurs most often; of equals the first."""
    return Counter(caption for k in range(len(pictures)) for caption in pictures.captions(k)).most_common(1)[0][0]


def nearest(images: Array, pictures: Pictures, count: int) -> list[int]:
    """For each of images (N, 3, S, S) the number of the one among the first `count` pictures that differs least, by the sum of squares.

    |a - b|^2 = |a|^2 - 2 a b + |b|^2, and a b for all pairs is a matrix product.
    """
    wanted = _flat(images)  # (N, 3 S S)
    best, least = np.zeros(len(wanted), np.int64), np.full(len(wanted), np.inf)
    for begin in range(0, count, CHUNK):
        known = _flat(pictures.images(range(begin, min(count, begin + CHUNK))))  # (M, 3 S S)
        distance = (known * known).sum(1) - 2 * (wanted @ known.T)  # (N, M), but for |a|^2, which decides nothing
        place = distance.argmin(1)
        found = distance[np.arange(len(wanted)), place]
        closer = found < least
        best[closer], least[closer] = begin + place[closer], found[closer]
    return best.tolist()


def _flat(images: Array) -> Array:
    return images.reshape(len(images), -1).astype(np.float32) / 255 - 0.5


def sacrebleu() -> Any:
    """The class BLEU. Raises MinirnnError where its package is not installed."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise MinirnnError('captions are scored with the package sacrebleu: pip install "minirnn[demo]"') from None
    return BLEU
