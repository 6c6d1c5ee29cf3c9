"""Text to text: vocabularies around a model whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from minirnn import MinirnnError
from minirnn.data import WordVocabulary
from minirnn.data.vocabulary import UNK
from minirnn.decoding import Hypothesis
from minirnn.models import Seq2Seq, Translator

ENGLISH, FRENCH = WordVocabulary(["the", "cat", "sleeps"]), WordVocabulary(["le", "chat", "dort"])


class WordByWord:
    """Translates each word by the one at its own place in the other vocabulary, and looks straight at it."""

    def translate(self, sources: Sequence[np.ndarray], **options: Any) -> list[Hypothesis]:
        return [Hypothesis(s, -1.0, -0.5, True, np.eye(len(s) + 1)[:, :-1]) for s in sources]


def translator() -> Translator:
    return Translator(cast(Seq2Seq, WordByWord()), ENGLISH, FRENCH)


def test_text_goes_in_and_text_comes_out() -> None:
    (found,) = translator().translate(["The cat sleeps"])
    assert (found.text, found.source, found.target) == ("le chat dort", ["the", "cat", "sleeps"], ["le", "chat", "dort"])
    assert found.score == -0.5


def test_an_unknown_word_is_copied_from_where_the_model_looked() -> None:
    assert ENGLISH.encode("the zebra sleeps")[1] == UNK
    assert [t.text for t in translator().translate(["the zebra sleeps"])] == ["le zebra dort"]
    assert [t.text for t in translator().translate(["the zebra sleeps"], copy_unknown=False)] == ["le <unk> dort"]


@pytest.mark.parametrize("text", ["", "  \t "])
def test_an_empty_text_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(MinirnnError, match="nothing to translate"):
        translator().translate(["the cat", text])
