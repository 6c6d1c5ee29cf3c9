from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import SubwordVocabulary, Vocabulary, WordVocabulary, load_vocabulary, normalise, words
from minirnn.errors import MinirnnError

TEXTS = [
    "Le chat dort sur le tapis.",
    "L'homme voit le chat, et le chat voit l'homme !",
    "Quelqu'un a-t-il vu les chats ?",
    "Un tapis, deux tapis, trois tapis.",
] * 5


@cache
def subwords() -> SubwordVocabulary:
    pytest.importorskip("sentencepiece", reason="subwords need sentencepiece (pip install 'minirnn[demo]')")
    return SubwordVocabulary.build(TEXTS, size=60)


def all_words() -> WordVocabulary:
    return WordVocabulary.build(TEXTS)


kinds = pytest.mark.parametrize("build", [all_words, subwords])


@kinds
def test_the_marks_come_first(build: Callable[[], Vocabulary]) -> None:
    v = build()
    assert (v.pad, v.bos, v.eos, v.unk) == (0, 1, 2, 3)
    assert [v.piece(i) for i in range(4)] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    for text in TEXTS:
        assert v.encode(text).min() > 3


@kinds
def test_known_text_comes_back(build: Callable[[], Vocabulary]) -> None:
    v = build()
    for text in TEXTS:
        ids = v.encode(text)
        assert ids.dtype == np.int64
        assert [v.piece(i) for i in ids] == v.pieces(text)
        assert words(v.decode(ids)) == words(text)
        assert v.join(v.pieces(text)) == v.decode(ids)


@kinds
def test_decoding_stops_at_the_end_and_leaves_the_marks_out(build: Callable[[], Vocabulary]) -> None:
    v = build()
    ids = v.encode("le chat")
    assert v.decode([v.bos, *ids, v.pad, v.eos, *ids]) == "le chat"
    assert v.decode([]) == v.decode([v.eos]) == ""
    assert v.encode("").shape == (0,)
    assert v.encode("").dtype == np.int64


@kinds
def test_the_unknown_is_marked(build: Callable[[], Vocabulary]) -> None:
    v = build()
    assert v.unk in v.encode("漢")
    assert v.decode(v.encode("le 漢")) == "le ⁇"
    assert v.decode(v.encode("le 漢"), unknown="X") == "le X"


@kinds
def test_json_brings_it_back(build: Callable[[], Vocabulary]) -> None:
    v = build()
    again = load_vocabulary(json.loads(json.dumps(v.to_json())))
    assert type(again) is type(v)
    assert [again.piece(i) for i in range(len(again))] == [v.piece(i) for i in range(len(v))]
    for text in [*TEXTS, "un chien inconnu"]:
        assert again.encode(text).tolist() == v.encode(text).tolist()


@given(st.lists(st.text(alphabet="abé' .", max_size=12), min_size=1, max_size=8), st.integers(1, 3))
def test_words_are_those_seen_often_enough(texts: list[str], min_count: int) -> None:
    tokens = [word for text in texts for word in words(text)]
    if not tokens:
        with pytest.raises(MinirnnError, match="no words at all"):
            WordVocabulary.build(texts, min_count)
        return
    v = WordVocabulary.build(texts, min_count)
    known = [v.piece(i) for i in range(4, len(v))]
    assert set(known) == {token for token in tokens if tokens.count(token) >= min_count}
    counts = [tokens.count(word) for word in known]
    assert counts == sorted(counts, reverse=True)
    assert WordVocabulary.build(reversed(texts), min_count).to_json() == v.to_json()


def test_the_largest_vocabulary_counts_the_marks() -> None:
    v = WordVocabulary.build(["a a a b b c"], min_count=1, max_size=6)
    assert [v.piece(i) for i in range(4, len(v))] == ["a", "b"]


@given(st.text(alphabet="lechatdorsuvmip'?, .-", max_size=40))
def test_subwords_spell_any_text_of_their_alphabet(text: str) -> None:
    v = subwords()
    if v.unk not in v.encode(text):
        assert v.decode(v.encode(text)) == normalise(text)


def test_subwords_cut_differently_with_dropout_and_spell_the_same() -> None:
    v = subwords()
    text = TEXTS[1]
    cuts = {tuple(v.encode(text, dropout=0.5, rng=seed)) for seed in range(20)}
    assert len(cuts) > 10
    assert {v.decode(cut) for cut in cuts} == {normalise(text)}
    assert v.encode(text, dropout=1.0, rng=0).size > v.encode(text).size


def test_dropout_follows_its_generator() -> None:
    v = subwords()

    def cuts(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [v.encode(text, dropout=0.3, rng=rng).tolist() for text in TEXTS]

    assert cuts(1) == cuts(1)
    assert cuts(1) != cuts(2)


def test_subwords_are_learned_the_same_way_twice() -> None:
    assert subwords().to_json() == SubwordVocabulary.build(TEXTS, size=60).to_json()
    assert len(subwords()) <= 60


def test_subwords_say_how_many_are_needed() -> None:
    pytest.importorskip("sentencepiece")
    with pytest.raises(MinirnnError, match="5 subwords are too few for texts of 3 different characters; at least 8"):
        SubwordVocabulary.build(["abc cba"], size=5)
    assert len(SubwordVocabulary.build(["abc cba"], size=8)) == 8
    with pytest.raises(MinirnnError, match="no words at all"):
        SubwordVocabulary.build(["", " "], size=50)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MinirnnError, match=r"sentencepiece: pip install minirnn\[demo\]"):
        SubwordVocabulary.build(TEXTS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected an object with 'kind', found list"),
        ({}, "kind must be one of words, subwords, found None"),
        ({"kind": "letters"}, "kind must be one of words, subwords, found 'letters'"),
        ({"kind": "words"}, "'words' must be a list of strings"),
        ({"kind": "words", "words": ["a", 3]}, "'words' must be a list of strings"),
        ({"kind": "words", "words": ["a", "a"]}, "a word occurs twice"),
        ({"kind": "words", "words": ["<pad>"]}, "a word occurs twice"),
        ({"kind": "subwords"}, "'model' is not a subword model"),
        ({"kind": "subwords", "model": 3}, "'model' is not a subword model"),
        ({"kind": "subwords", "model": "*"}, "'model' is not a subword model"),
        ({"kind": "subwords", "model": ""}, "'model' is not a subword model"),
        ({"kind": "subwords", "model": "AAAA"}, "'model' is not a subword model"),
    ],
)
def test_a_damaged_file_is_refused(data: Any, message: str) -> None:
    if isinstance(data, dict) and data.get("kind") == "subwords":
        pytest.importorskip("sentencepiece")
    with pytest.raises(MinirnnError, match=message):
        load_vocabulary(data)


def test_a_model_cut_short_is_refused() -> None:
    whole = subwords().to_json()
    with pytest.raises(MinirnnError, match="'model' is not a subword model"):
        load_vocabulary({**whole, "model": whole["model"][: len(whole["model"]) // 8 * 4]})
