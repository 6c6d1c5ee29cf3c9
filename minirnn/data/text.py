"""From running text to words and punctuation marks, and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Characters that differ in looks only, written in one way.
_SAME = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "\u02bc": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u2010": "-",
        "\u2011": "-",
        "\u2212": "-",
        "\u00ad": None,
        "\u200b": None,
        "\u200e": None,
        "\u200f": None,
        "\ufeff": None,
    }
)

_ENGLISH_CLITIC = r"(?:s|m|d|t|re|ve|ll)\b"

# The tail of an English word ('s, 'll), a French elision (l', d', qu'), a word or number, any other mark alone.
_LETTER = r"[\w\u0300-\u036f]"  # with the accents that have no precomposed letter
_TOKEN = re.compile(rf"(?<={_LETTER})'{_ENGLISH_CLITIC}|{_LETTER}+'(?!{_ENGLISH_CLITIC})(?={_LETTER})|{_LETTER}+|[^\w\s]")

_CLITIC = re.compile(rf"'{_ENGLISH_CLITIC}")
_ELISION = re.compile(rf"{_LETTER}+'")

_LEFT = frozenset(".,;:!?%)]}'…°")  # written against the word before
_RIGHT = frozenset("([{#$€£")  # written against the word after
_BOTH = frozenset("-/")


def normalise(text: str) -> str:
    """Lower-cased text in Unicode NFC, with plain apostrophes, quotes and hyphens and single plain spaces.

    A hyphen that stands between spaces is a dash and becomes one, so that every remaining `-` belongs to a word.
    """
    text = unicodedata.normalize("NFC", text.translate(_SAME).lower())
    text = " ".join(text.split())
    return re.sub(r"(?<!\S)-(?!\S)", "–", text)


def words(text: str) -> list[str]:
    """The words, numbers and punctuation marks of a text, lower-cased: `L’homme dort.` gives `l' homme dort .`.

    A French elision keeps its apostrophe (`l'`, `qu'`), an English ending too (`'s`, `'ll`). References and hypotheses both go through
    this function before BLEU counts them.
    """
    return _TOKEN.findall(normalise(text))


def join(tokens: Iterable[str]) -> str:
    """Readable text from the output of `words`; splitting it again gives the same tokens."""
    pieces: list[str] = []
    glue = True
    quoted = False
    tokens = list(tokens)
    for i, token in enumerate(tokens):
        opens = token == '"' and not quoted
        closes = token == '"' and quoted
        attach = glue or closes or token in _LEFT or token in _BOTH or _CLITIC.fullmatch(token) is not None
        pieces.append(token if attach else " " + token)
        glue = opens or token in _RIGHT or token in _BOTH or _ELISION.fullmatch(token) is not None or _in_number(tokens, i)
        quoted = quoted != (token == '"')
    return "".join(pieces)


def _in_number(tokens: list[str], i: int) -> bool:
    """Whether the mark at `i` belongs to a number or a time, as in 3:45, 12,5 and 1,000 but not in `March 4, 1975` or `March 4, 3:45`."""
    before, after, beyond = (tokens[k] if 0 <= k < len(tokens) else "" for k in (i - 1, i + 1, i + 2))
    if not (before.isdigit() and after.isdigit()):
        return False
    return tokens[i] in (".", ":") or (tokens[i] == "," and len(before) <= 3 and len(after) <= 3 and beyond not in (":", "/"))
