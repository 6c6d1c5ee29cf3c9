from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest

from minirnn.data import ParallelText, WordVocabulary, source, words
from minirnn.data.sources import cldr
from minirnn.data.sources.cldr_parts import Deck, Part, Parts, distinct
from minirnn.errors import MinirnnError

pytest.importorskip("babel", reason="cldr needs Babel (pip install 'minirnn[demo]')")
pytest.importorskip("emoji", reason="cldr needs emoji (pip install 'minirnn[demo]')")


@cache
def text() -> ParallelText:
    return source("cldr")


def test_sizes() -> None:
    assert 30_000 <= len(text().train) <= 60_000
    assert (len(text().valid), len(text().test)) == (cldr.VALID, cldr.TEST)
    lengths = [len(words(french)) for _, french in text().test]
    assert 4 <= np.median(lengths) <= 10
    for side in (0, 1):
        assert len(WordVocabulary.build(pair[side] for pair in text().train)) < 4000


def test_each_english_phrase_has_one_french_one_and_one_place() -> None:
    every = [*text().train, *text().valid, *text().test]
    assert len({tuple(words(english)) for english, _ in every}) == len(every)


def test_held_out_phrases_are_combinations_that_training_does_not_have() -> None:
    """By words alone, whatever their order: what training would need to have, beside the format, to know the phrase."""
    linking = {"and", "or", ","}
    seen = {frozenset(words(english)) - linking for english, _ in text().train if {"and", "or"} & set(words(english))}
    for english, _ in [*text().valid, *text().test]:
        if {"and", "or"} & set(words(english)):
            assert frozenset(words(english)) - linking not in seen


def test_a_held_out_date_is_in_no_training_phrase() -> None:
    dates = {match[1] for english, _ in text().test if (match := re.fullmatch(r"\w+day, (\w+ \d+, \d{4})", english))}
    assert len(dates) > 20
    for english, _ in text().train:
        assert not any(date in english for date in dates)


def test_every_held_out_word_is_a_known_one() -> None:
    for side in (0, 1):
        counts = Counter(word for pair in text().train for word in words(pair[side]))
        for pair in [*text().valid, *text().test]:
            assert min(counts[word] for word in words(pair[side])) >= 2


@pytest.mark.parametrize(
    "pair",
    [("Peru", "Pérou"), ("Japan", "Japon"), ("Greek", "grec"), ("Finnish", "finnois"), ("hedgehog", "hérisson"), ("wolf", "loup")],
)
def test_names_are_in_training(pair: tuple[str, str]) -> None:
    assert pair in text().train


def test_dates_keep_day_and_year() -> None:
    found = 0
    for english, french in text().train:
        ours, theirs = re.fullmatch(r"\w+ (\d+), (\d{4})", english), re.fullmatch(r"(\d+) [\wéû.]+ (\d{4})", french)
        if ours and theirs:
            assert ours.groups() == theirs.groups()
            found += 1
    assert found > 300


def test_times_are_of_twelve_hours_in_english_and_of_24_in_french() -> None:
    found = 0
    for english, french in text().train:
        ours, theirs = re.match(r"(\d+):(\d+)\s([AP])M ", english), re.match(r"(\d+):(\d+) ", french)
        if ours and theirs:
            assert (int(ours[1]) % 12 + 12 * (ours[3] == "P"), ours[2]) == (int(theirs[1]), theirs[2])
            found += 1
    assert found > 300


FEWER = 2_000  # phrases, where their number does not matter


def digest(pairs: ParallelText) -> str:
    return hashlib.sha256(json.dumps([pairs.train, pairs.valid, pairs.test]).encode()).hexdigest()


def test_one_seed_one_text_in_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cldr, "PHRASES", FEWER)
    code = (
        "import hashlib, json; from minirnn.data import source; from minirnn.data.sources import cldr;"
        f"cldr.PHRASES = {FEWER}; t = source('cldr', seed=0);"
        "print(hashlib.sha256(json.dumps([t.train, t.valid, t.test]).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "LANG": "C"}
    there = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == digest(source("cldr")) == digest(source("cldr"))


def test_another_seed_gives_other_phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cldr, "PHRASES", FEWER)
    one, other = ({english for english, _ in source("cldr", seed=seed).train[-500:]} for seed in (0, 1))  # the names come first
    assert len(one & other) < len(one) // 10


def test_parts_say_what_cldr_says() -> None:
    parts = Parts(np.random.default_rng(0))
    peru, km = Part("Peru", "Pérou", ("territories PE",)), Part("3 kilometers", "3 kilomètres", ("3 length-kilometer",))
    wolf = Part("wolf", "loup", ("emoji 🐺",))
    listed = parts.listed([peru, km, wolf], "or")
    assert (listed.english, listed.french) == ("Peru, 3 kilometers, or wolf", "Pérou, 3 kilomètres ou loup")
    assert listed.key == ("3 length-kilometer", "emoji 🐺", "territories PE")
    assert parts.listed([km, wolf, peru], "standard").key == listed.key


def test_a_deck_deals_everything_once_before_anything_twice() -> None:
    deck = Deck(range(7), np.random.default_rng(0))
    first, second = [[deck.draw() for _ in range(7)] for _ in range(2)]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_the_first_french_of_an_english_name_counts() -> None:
    parts = [Part("Turkey", "Turquie", ("a",)), Part("rat", "rat", ("b",)), Part("turkey", "dindon", ("c",))]
    assert distinct(parts) == parts[:2]


@pytest.mark.parametrize("package", ["babel", "emoji"])
def test_without_the_packages_the_message_says_how_to_get_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MinirnnError, match=rf"cldr needs the package {package}: pip install minirnn\[demo\]"):
        source("cldr")
