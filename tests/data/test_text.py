from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import join, normalise, words

awkward = st.text(alphabet="aslmdtvé'’-\"., 134(:/!?\u0301\u00a0–", max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L’homme dort.", "l' homme dort ."),
        ("Qu'il n'a pas vu\u202f!", "qu' il n' a pas vu !"),
        ("Aujourd'hui", "aujourd' hui"),
        ("A boy's T-shirt isn't here", "a boy 's t - shirt isn 't here"),
        ("The dogs' bones", "the dogs ' bones"),
        ("We’ll go, I’m sure", "we 'll go , i 'm sure"),
        ("3:45\u202fPM, 12,5\u00a0km", "3 : 45 pm , 12 , 5 km"),
        ("“so” – he said - twice", '" so " – he said – twice'),
        ("", ""),
        (" \t\n", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    "text",
    [
        "l'homme n'a pas d'argent, qu'il dit.",
        "a boy's t-shirt isn't (really) here!",
        'she said "yes" and "no", twice',
        "tuesday, march 4, 1975, 3:45 pm",
        "12,5 kilomètres or 1,000.5 miles",
        "04/03/1975, 3/4",
        "october 30, 4:04 pm",
        "french (canada): 100% of it",
    ],
)
def test_join_gives_back_well_set_text(text: str) -> None:
    assert join(words(text)) == text


@given(st.one_of(st.text(max_size=30), awkward))
def test_words_of_joined_words_are_the_same(text: str) -> None:
    assert words(join(words(text))) == words(text)


@given(st.one_of(st.text(max_size=30), awkward))
def test_words_lose_only_blanks(text: str) -> None:
    assert "".join(words(text)) == "".join(normalise(text).split())


@given(awkward)
def test_what_looks_the_same_is_the_same(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text).replace("'", "’").replace(" ", "\u00a0")) == words(text)
    assert words(text.upper().lower()) == words(text.upper())


@given(st.one_of(st.text(max_size=30), awkward))
def test_normalised_text_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
