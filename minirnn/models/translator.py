"""A `Seq2Seq` with its vocabularies: from text to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minirnn.data.vocabulary import UNK, Vocabulary
from minirnn.decoding import Hypothesis
from minirnn.device import Array
from minirnn.errors import MinirnnError
from minirnn.models.seq2seq import Seq2Seq


@dataclass(frozen=True)
class Translation:
    """One translated text.

    text       the translation, for people
    source     the pieces of the source text
    target     the pieces of the translation; the attention has one row for each, and where the model ended by itself one more for the end
    score      what the search ranked it by
    attention  (L or L + 1, T), or None for a model without attention
    """

    text: str
    source: list[str]
    target: list[str]
    score: float
    attention: Array | None


class Translator:
    """Translates texts with a model and the vocabularies that it was trained with."""

    def __init__(self, model: Seq2Seq, source: Vocabulary, target: Vocabulary) -> None:
        self.model = model
        self.source = source
        self.target = target

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int = 1,
        length_penalty: float = 1.0,
        coverage_penalty: float = 0.0,
        copy_unknown: bool = True,
    ) -> list[Translation]:
        """The best translation of each text.

        beam              1 is greedy
        length_penalty    exponent of the length normalisation, see `minirnn.decoding.beam_search`
        coverage_penalty  weight of the penalty for source words that were never looked at
        copy_unknown      write, for a word that the model knows only as unknown, the source word that it looked at most

        Raises MinirnnError for a text without any words.
        """
        ids = [self.source.encode(text) for text in texts]
        for text, encoded in zip(texts, ids, strict=True):
            if not len(encoded):
                raise MinirnnError(f"there is nothing to translate in {text!r}: no word and no mark")
        found = self.model.translate(ids, beam=beam, length_penalty=length_penalty, coverage_penalty=coverage_penalty)
        return [self._in_words(text, hypothesis, copy_unknown) for text, hypothesis in zip(texts, found, strict=True)]

    def _in_words(self, text: str, hypothesis: Hypothesis, copy_unknown: bool) -> Translation:
        source = self.source.pieces(text)
        target = [self.target.piece(token) for token in hypothesis.tokens]
        if copy_unknown and hypothesis.attention is not None:
            for place in np.flatnonzero(hypothesis.tokens == UNK):
                target[place] = source[hypothesis.attention[place].argmax()]
        return Translation(self.target.join(target), source, target, hypothesis.score, hypothesis.attention)
