"""Phrases that the Unicode CLDR can say in English and in French: names, dates, times, measures, amounts, and compositions of them.

Everything is made on this machine from the locale data in the packages Babel and emoji. Each name is in the training pairs on its own;
a phrase for validation or test combines parts that no training phrase has together, in whatever order or form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from minirnn.data.sources.cldr_parts import Part, Parts, distinct
from minirnn.data.sources.parallel import ParallelText, Splits
from minirnn.data.sources.source import Source

PHRASES = 36_000
VALID, TEST = 1_000, 2_000
ITEMS = (1, 1, 2, 2, 3)  # in a phrase, each as likely
STYLES = ("standard", "standard", "or", "unit")  # of a list: with "and", "or", or nothing but commas
SEEN = 2  # times that every word of a held-out phrase occurs in training, so that a vocabulary of words seen twice knows it


def load(data_dir: str | None = None, seed: int = 0) -> ParallelText:
    """About 33,000 phrases for training, 1,000 for validation and 2,000 for test, drawn with `seed`. `data_dir` is not used."""
    parts = Parts(np.random.default_rng(seed))
    names = parts.names()
    phrases = _draw(parts, names, np.random.default_rng([seed, 1]))
    splits = _split(names, phrases, np.random.default_rng([seed, 2]))
    return ParallelText(
        name="cldr",
        languages=("English", "French"),
        train=splits.train,
        valid=splits.valid,
        test=splits.test,
        attribution=f"Unicode CLDR (Unicode License v3) from {parts.versions()}, both BSD",
        note="valid and test hold combinations of parts that are not in train; every word of theirs is",
    )


def _draw(parts: Parts, names: list[Part], rng: np.random.Generator) -> list[Part]:
    """Phrases that differ in English, each of one French."""
    single: dict[Callable[[], Part], float] = {
        parts.measure: 14,
        parts.rate: 6,
        parts.amount: 10,
        parts.date: 16,
        parts.interval: 7,
        parts.moment: 10,
        parts.zoned_time: 6,
        parts.relative: 5,
        parts.quantity: 5,
        parts.period: 5,
        parts.variety: 16,
    }
    in_list: dict[Callable[[], Part], float] = {
        parts.name: 60,
        parts.measure: 9,
        parts.rate: 3,
        parts.amount: 7,
        parts.date: 8,
        parts.interval: 1,
        parts.moment: 1,
        parts.time: 4,
        parts.relative: 3,
        parts.quantity: 2,
        parts.period: 2,
        parts.variety: 4,
    }
    draw_single, draw_item = _choice(single, rng), _choice(in_list, rng)

    def phrase() -> Part:
        count = ITEMS[rng.integers(len(ITEMS))]
        return draw_single() if count == 1 else parts.listed([draw_item() for _ in range(count)], STYLES[rng.integers(len(STYLES))])

    found = distinct([*names, *(phrase() for _ in range(PHRASES))])
    return found[len(names) :]


def _choice(makers: dict[Callable[[], Part], float], rng: np.random.Generator) -> Callable[[], Part]:
    """Calls one of the makers, in proportion to their weights."""
    choices = list(makers)
    ends = np.cumsum(list(makers.values()))
    return lambda: choices[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]()


def _split(names: list[Part], phrases: list[Part], rng: np.random.Generator) -> Splits:
    """Holds out phrases whose parts no other phrase has together, and whose words occur often enough in the rest."""
    holders: dict[str, set[tuple[str, ...]]] = {}
    groups: dict[tuple[str, ...], list[Part]] = {}
    for phrase in phrases:
        groups.setdefault(phrase.key, []).append(phrase)
        for atom in phrase.key:
            holders.setdefault(atom, set()).add(phrase.key)
    left = Counter(word for part in [*names, *phrases] for word in _words(part))

    train, valid, test = list(names), list[Part](), list[Part]()
    keys = list(groups)
    for i in rng.permutation(len(keys)):
        key, group = keys[i], groups[keys[i]]
        into = next((part for part, size in ((valid, VALID), (test, TEST)) if len(part) + len(group) <= size), train)
        if into is not train and (len(set.intersection(*(holders[atom] for atom in key))) > 1 or not _spare(group, left)):
            into = train
        into.extend(group)
    return Splits(*([(part.english, part.french) for part in parts] for parts in (train, valid, test)))


def _spare(group: list[Part], left: Counter[str]) -> bool:
    """Takes the words of a group out of `left`, if enough of them stay."""
    used = Counter(word for part in group for word in _words(part))
    enough = all(left[word] - count >= SEEN for word, count in used.items())
    if enough:
        left.subtract(used)
    return enough


def _words(part: Part) -> list[str]:
    """The words of both languages, told apart."""
    english, french = part.words
    return [f"en {word}" for word in english] + [f"fr {word}" for word in french]


SOURCE = Source(
    name="cldr",
    what="English to French names, dates, times, units, amounts and lists",
    size="about 36,000 phrases, 3,000 of them held out",
    licence="Unicode License v3 (CLDR), BSD (Babel, emoji)",
    origin="made on this machine from the packages Babel and emoji",
    loaders={ParallelText: load},
)
