"""Vocabularies: text to numbers and back, by whole words or by subwords."""

from __future__ import annotations

import base64
import binascii
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirnn.data.text import join, normalise, words
from minirnn.errors import MinirnnError
from minirnn.random import Rng, generator

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
UNKNOWN_MARK = "⁇"


class Vocabulary(ABC):
    """V pieces of text with the numbers 0 to V - 1, of which the first four are padding, begin, end and unknown."""

    pad, bos, eos, unk = PAD, BOS, EOS, UNK

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def piece(self, id: int) -> str:
        """The text of one number; for the first four their names in `SPECIALS`."""

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """The pieces a text is cut into, those the vocabulary does not know as they stand in the text."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int64]:
        """The numbers (L,) of the pieces of a text, without begin and end."""

    @abstractmethod
    def join(self, pieces: Iterable[str]) -> str:
        """Readable text from pieces."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A dict that `json` can write and `load_vocabulary` reads back."""

    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN_MARK) -> str:
        """Readable text from numbers: stops at the end mark, leaves out padding and begin, writes `unknown` for the unknown."""
        return self.join(unknown if id == UNK else self.piece(id) for id in _until_eos(ids))


class WordVocabulary(Vocabulary):
    """One number for each word and punctuation mark.

    Args:
        known: the words in the order of their numbers, which begin at 4.
    """

    def __init__(self, known: Sequence[str]):
        self._pieces = [*SPECIALS, *known]
        self._ids = {piece: id for id, piece in enumerate(self._pieces)}
        if len(self._ids) != len(self._pieces):
            raise ValueError("WordVocabulary: a word occurs twice")

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int = 2, max_size: int | None = None) -> WordVocabulary:
        """The words that occur at least `min_count` times in `texts`, most frequent first, ties in alphabetical order.

        Args:
            max_size: the largest vocabulary wanted, its four special marks included.
        """
        counts = Counter(word for text in texts for word in words(text))
        known = sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word))
        if not counts:
            raise MinirnnError("vocabulary: the texts hold no words at all")
        return cls(known if max_size is None else known[: max(0, max_size - len(SPECIALS))])

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, id: int) -> str:
        return self._pieces[id]

    def pieces(self, text: str) -> list[str]:
        return words(text)

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array([self._ids.get(word, UNK) for word in words(text)], dtype=np.int64)

    def join(self, pieces: Iterable[str]) -> str:
        return join(pieces)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "words", "words": self._pieces[len(SPECIALS) :]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WordVocabulary:
        """The vocabulary that `to_json` described. Raises MinirnnError where the dict is not one of its."""
        known = data.get("words")
        if not isinstance(known, list) or not all(isinstance(word, str) for word in known):
            raise MinirnnError("vocabulary: 'words' must be a list of strings; the file was changed or cut short")
        try:
            return cls(known)
        except ValueError as error:
            raise MinirnnError(f"vocabulary: the file is damaged ({error})") from None


class SubwordVocabulary(Vocabulary):
    """Frequent words whole and rare ones in parts, by byte-pair encoding (Sennrich, Haddow and Birch, 2016) with `sentencepiece`.

    Args:
        model: the trained model's bytes, with the four special marks at 0 to 3.
    """

    def __init__(self, model: bytes):
        if not model:  # which the library takes for one that is yet to come
            raise RuntimeError("an empty model")
        self._model = model
        self._processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
        if self._processor.get_piece_size() <= len(SPECIALS) or self._processor.unk_id() != UNK:
            raise RuntimeError("a model without the special marks at 0 to 3")

    @classmethod
    def build(cls, texts: Iterable[str], size: int = 8000) -> SubwordVocabulary:
        """Learns at most `size` pieces, the special marks included; the same texts in the same order give the same pieces."""
        model = io.BytesIO()
        lines = [normalise(text) for text in texts]
        if not any(lines):
            raise MinirnnError("vocabulary: the texts hold no words at all")
        characters = len(set("".join(lines)) - {" "})
        least = len(SPECIALS) + characters + 1  # the mark of a word's beginning
        if size < least:
            raise MinirnnError(f"vocabulary: {size} subwords are too few for texts of {characters} different characters; at least {least}")
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            split_digits=True,
            max_sentence_length=1 << 20,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            pad_piece=SPECIALS[PAD],
            bos_piece=SPECIALS[BOS],
            eos_piece=SPECIALS[EOS],
            unk_piece=SPECIALS[UNK],
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def piece(self, id: int) -> str:
        return str(self._processor.id_to_piece(int(id)))

    def pieces(self, text: str) -> list[str]:
        return list(self._processor.encode(normalise(text), out_type=str))

    def encode(self, text: str, dropout: float = 0.0, rng: Rng = None) -> NDArray[np.int64]:
        """The numbers (L,) of the pieces of a text, without begin and end.

        Args:
            dropout: the probability that a merge is left out, so that a word is cut differently each time
                (BPE-dropout, Provilkov, Emelianenko and Voita, 2020). For training only.
            rng: where the cuts come from.
        """
        if dropout == 0.0:
            return np.array(self._processor.encode(normalise(text)), dtype=np.int64)
        _sentencepiece().set_random_generator_seed(int(generator(rng).integers(2**32)))
        return np.array(self._processor.encode(normalise(text), enable_sampling=True, alpha=dropout), dtype=np.int64)

    def join(self, pieces: Iterable[str]) -> str:
        return "".join(pieces).replace("▁", " ").strip()

    def to_json(self) -> dict[str, Any]:
        return {"kind": "subwords", "model": base64.b64encode(self._model).decode("ascii")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SubwordVocabulary:
        """The vocabulary that `to_json` described. Raises MinirnnError where the dict is not one of its."""
        try:
            return cls(base64.b64decode(data["model"], validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error, RuntimeError):
            raise MinirnnError("vocabulary: 'model' is not a subword model of minirnn's; the file was changed or cut short") from None


_KINDS: dict[str, type[WordVocabulary] | type[SubwordVocabulary]] = {"words": WordVocabulary, "subwords": SubwordVocabulary}


def load_vocabulary(data: object) -> WordVocabulary | SubwordVocabulary:
    """The vocabulary that `to_json` described."""
    if not isinstance(data, dict):
        raise MinirnnError(f"vocabulary: expected an object with 'kind', found {type(data).__name__}")
    kind = _KINDS.get(str(data.get("kind")))
    if kind is None:
        raise MinirnnError(f"vocabulary: kind must be one of {', '.join(_KINDS)}, found {data.get('kind')!r}")
    return kind.from_json(data)


def _until_eos(ids: Iterable[int]) -> Iterator[int]:
    for id in map(int, ids):
        if id == EOS:
            return
        if id not in (PAD, BOS):
            yield id


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise MinirnnError("subwords need the package sentencepiece: pip install minirnn[demo]") from None
    return sentencepiece
