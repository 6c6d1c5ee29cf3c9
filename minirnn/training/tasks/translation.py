"""Learning to translate: `Seq2Seq` on sentence pairs, judged by BLEU, chrF and exact matches."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from minirnn import data as minirnn_data
from minirnn.data import ParallelText, SubwordVocabulary, TranslationBatch, Vocabulary, WordVocabulary, bucketed, load_vocabulary, words
from minirnn.device import Array
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.models import Seq2Seq, Seq2SeqConfig, Translation, Translator
from minirnn.models.chunks import Reader
from minirnn.study.examine import Subject
from minirnn.study.example import Axis
from minirnn.tensor import Tensor
from minirnn.training import extras, subjects
from minirnn.training.pictures import alignment
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions
from minirnn.training.verbs import Question

VOCABULARIES = "vocab.json"
VALIDATED = 1000  # pairs that are translated at each validation, at the most


@dataclass(frozen=True)
class TranslationConfig(Seq2SeqConfig):
    """Hyper-parameters of the model, and of how text becomes numbers.

    Args:
        vocabulary: whole words, or subwords by byte-pair encoding.
        min_count: occurrences that make a word known.
        subwords: pieces in each subword vocabulary.
        bpe_dropout: in training, the probability that a merge is left out.
        batch_size: sentence pairs per update.
        max_length: pairs with a longer side, in pieces, are left out of the training.

    Dropout and label smoothing are by default what suits some ten thousand sentences.
    """

    dropout: float = 0.4
    label_smoothing: float = 0.1
    vocabulary: Literal["words", "subwords"] = "words"
    min_count: int = 2
    subwords: int = 8000
    bpe_dropout: float = 0.0
    batch_size: int = 64
    max_length: int = 80

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_count", "subwords", "batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.bpe_dropout < 1:
            raise ValueError(f"bpe_dropout must lie in [0, 1), got {self.bpe_dropout}")
        if self.bpe_dropout and self.vocabulary != "subwords":
            raise ValueError("bpe_dropout cuts words in different ways and needs vocabulary=subwords")


@dataclass(frozen=True)
class Examples:
    """The numbers of the training examples of one batch, and the seed of what is drawn for it."""

    numbers: Array
    seed: int


class TranslationTask(Task[TranslationConfig, Examples]):
    name = "seq2seq"
    summary = "an LSTM encoder and decoder with attention, from sentence pairs"
    config_type = TranslationConfig
    settled_by_data: ClassVar[frozenset[str]] = frozenset({"source_size", "target_size"})
    training = TrainingOptions(lr=2e-3, schedule="linear", warmup=100, average=0.999, epochs=12)
    default_data = "cldr"
    metric = Metric("bleu", higher_is_better=True)
    demo = Demo(
        data="cldr",
        minutes=2.5,
        title="An LSTM with attention learns to translate English phrases into French.",
        settings={"embedding": 128, "dropout": 0.1, "label_smoothing": 0.0, "average": 0.0, "epochs": 8},
    )
    evaluation_options: ClassVar[frozenset[str]] = frozenset({"beam", "length_penalty", "coverage_penalty", "copy_unknown"})

    def __init__(self, config: TranslationConfig, data: DataArguments, model: Seq2Seq, source: Vocabulary, target: Vocabulary) -> None:
        self.config = config
        self.data = data
        self.model: Seq2Seq = model
        self.translator = Translator(model, source, target)

    @classmethod
    def build(cls, config: TranslationConfig, data: DataArguments, seed: int) -> Self:
        _sacrebleu()  # the first validation would be late to find that it is missing
        text = minirnn_data.source(data.source, data.folder, data.seed)
        source, target = (_vocabulary(config, [pair[side] for pair in text.train]) for side in (0, 1))
        config = dataclasses.replace(config, source_size=len(source), target_size=len(target))
        task = cls(config, data, Seq2Seq(config, rng=seed), source, target)
        task.text = text
        return task

    @classmethod
    def restore(cls, config: TranslationConfig, data: DataArguments, folder: Path) -> Self:
        path = folder / VOCABULARIES
        source, target = extras.read(path, lambda stored: [load_vocabulary(stored[side]) for side in ("source", "target")])
        extras.check(path, "pieces", (len(source), len(target)), (config.source_size, config.target_size))
        return cls(config, data, Seq2Seq(config, rng=0), source, target)

    def save_extras(self, folder: Path) -> None:
        stored = {"source": self.translator.source.to_json(), "target": self.translator.target.to_json()}
        write_atomically(folder / VOCABULARIES, json.dumps(stored, ensure_ascii=False))

    @cached_property
    def text(self) -> ParallelText:
        return minirnn_data.source(self.data.source, self.data.folder, self.data.seed)

    @cached_property
    def _training(self) -> list[tuple[tuple[str, str], tuple[Array, Array]]]:
        """The training pairs as text and as numbers, without the empty and the very long."""
        encoded = [(self.translator.source.encode(s), self.translator.target.encode(t)) for s, t in self.text.train]
        most = self.config.max_length
        return [both for both in zip(self.text.train, encoded, strict=True) if all(0 < len(side) <= most for side in both[1])]

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Examples]:
        lengths = np.array([[len(s), len(t)] for _, (s, t) in self._training]).reshape(-1, 2).T
        numbers = bucketed(lengths[0], lengths[1], self.config.batch_size, rng)
        return [Examples(chosen, int(seed)) for chosen, seed in zip(numbers, rng.integers(2**32, size=len(numbers)), strict=True)]

    def loss(self, batch: Examples, step: int) -> Tensor:
        return self.model.loss(self.numbers(batch))

    def why_whole(self) -> str | None:
        return None

    def reader(self, batch: Examples) -> Reader:
        return self.model.reader(self.numbers(batch))

    def size(self, batch: Examples) -> int:
        return sum(len(self._training[k][1][1]) + 1 for k in batch.numbers)

    def numbers(self, batch: Examples) -> TranslationBatch:
        """The sentence pairs of a batch."""
        pairs = [self._training[k][1] for k in batch.numbers]
        source, target, dropout = self.translator.source, self.translator.target, self.config.bpe_dropout
        if dropout and isinstance(source, SubwordVocabulary) and isinstance(target, SubwordVocabulary):
            rng = np.random.default_rng(batch.seed)
            texts = [self._training[k][0] for k in batch.numbers]
            pairs = [(source.encode(s, dropout, rng), target.encode(t, dropout, rng)) for s, t in texts]
        return TranslationBatch([s for s, _ in pairs], [t for _, t in pairs])

    def numbers_of(self, pairs: Sequence[tuple[str, str]]) -> TranslationBatch:
        """Any sentence pairs as a batch."""
        return TranslationBatch([self.translator.source.encode(s) for s, _ in pairs], [self.translator.target.encode(t) for _, t in pairs])

    def validate(self) -> dict[str, float]:
        pairs = self.text.valid[:VALIDATED]
        scores = self._scores(pairs, self.translator.translate([s for s, _ in pairs]))
        return {**self._likelihood(pairs), **{name: scores[name] for name in ("bleu", "chrf", "exact")}}

    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        pairs = getattr(self.text, split)
        result: dict[str, Any] = {"split": split, "pairs": len(pairs), **self._likelihood(pairs)}
        return result | self._scores(pairs, self.translator.translate([s for s, _ in pairs], **options)) | options

    def _likelihood(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Mean negative log-likelihood per target piece, and its exponential."""
        training = self.model.training
        self.model.eval()
        order = sorted(range(len(pairs)), key=lambda k: len(pairs[k][1]))
        total, count = 0.0, 0
        for start in range(0, len(order), self.config.batch_size):
            chosen = [pairs[k] for k in order[start : start + self.config.batch_size]]
            batch = self.numbers_of(chosen)
            total -= float(self.model.log_likelihood(batch).sum())
            count += batch.tokens
        self.model.train(training)
        return {"loss": total / count, "perplexity": math.exp(min(total / count, 700))}

    def _scores(self, pairs: Sequence[tuple[str, str]], translations: Sequence[Translation]) -> dict[str, Any]:
        """Corpus scores of lower-cased text split into words and marks."""
        bleu_metric, chrf_metric = _sacrebleu()
        hypotheses = [" ".join(words(t.text)) for t in translations]
        references = [[" ".join(words(target)) for _, target in pairs]]
        bleu, chrf = bleu_metric.corpus_score(hypotheses, references), chrf_metric.corpus_score(hypotheses, references)
        exact = sum(h == r for h, r in zip(hypotheses, references[0], strict=True))
        return {
            "bleu": bleu.score,
            "chrf": chrf.score,
            "exact": 100 * exact / len(hypotheses),
            "brevity_penalty": bleu.bp,
            "length_ratio": bleu.sys_len / max(1, bleu.ref_len),
            "signature": f"BLEU {bleu_metric.get_signature()} chrF {chrf_metric.get_signature()}",
        }

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        pairs = getattr(self.text, split)
        chosen = np.random.default_rng(0).choice(len(pairs), min(count, len(pairs)), replace=False)
        outputs = self.translator.translate([pairs[k][0] for k in chosen])
        return [
            {"source": pairs[k][0], "translation": output.text, "reference": pairs[k][1]} for k, output in zip(chosen, outputs, strict=True)
        ]

    def study(self, asked: Question) -> Subject:
        """A text with the translation that is given, or with the model's own; or a pair of the data."""
        source, target = self.translator.source, self.translator.target
        pair = (asked.given, None) if asked.given is not None else subjects.chosen(getattr(self.text, asked.split), asked, "pairs")
        text, wanted = pair[0], pair[1] if asked.target is None else asked.target
        ids, labels = subjects.encoded(text, source, asked, "the input")
        note = ""
        if wanted is None:
            (found,) = self.model.translate([ids], beam=asked.beam)
            words, said, note = found.tokens, subjects.spelt(found.tokens, target), subjects.own(found)
        else:
            words, said = subjects.encoded(wanted, target, asked, "the target")
        return Subject(
            title="A translator at work",
            text=f"{text} → {target.join(said)}",
            note=note,
            model=self.name,
            terms=lambda: self.model.terms(ids, words),
            inputs={"source": Axis("source", "tokens", labels), "target": subjects.before(said)},
            output="translation",
            labels=[*said, subjects.END],
            say=lambda predicted: subjects.spelt(predicted, target),
            under={"encoder": "source", "decoder": "translation"},
            starts={"decoder": "encoder"},
        )

    def describe(self) -> str:
        text, (source, target) = self.text, self.text.train[0]
        return (
            f"{len(text.train):,} pairs, {text.languages[0]} to {text.languages[1]}, from {text.name}, such as {source!r}: {target!r}.\n"
            f"{text.attribution}\n"
            f"{self.model.num_parameters():,} parameters; vocabularies of {self.config.source_size:,} and {self.config.target_size:,}."
        )

    def pictures(self, folder: Path) -> list[Path]:
        """attention.png: where the words of one translated test sentence come from."""
        source = max((s for s, _ in self.text.test[:50]), key=lambda s: min(len(self.translator.source.pieces(s)), 12))
        (found,) = self.translator.translate([source])
        if found.attention is None:
            return []
        target = [*found.target, "(end)"][: len(found.attention)]
        return [alignment(found.attention, found.source, target, folder / "attention.png")]

    def hints(self, folder: Path) -> list[list[str]]:
        translate = ["translate", str(folder), self.text.test[0][0]]
        return [translate, [*translate, "--beam", "5", "--show-attention"], ["study", str(folder)]]


def _vocabulary(config: TranslationConfig, texts: Sequence[str]) -> Vocabulary:
    if config.vocabulary == "subwords":
        return SubwordVocabulary.build(texts, size=config.subwords)
    return WordVocabulary.build(texts, min_count=config.min_count)


def _sacrebleu() -> tuple[Any, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MinirnnError('translations are scored with the package sacrebleu: pip install "minirnn[demo]"') from None
    return BLEU(tokenize="none", force=True), CHRF()
