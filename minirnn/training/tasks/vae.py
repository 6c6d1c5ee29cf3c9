"""Learning a space of sentences: `SequenceVAE` on any sentences, judged by bounds on their likelihood and by what z carries.

All scores are means over sentences, in nats, the end of a sentence counted as one of its words:

    reconstruction   -E_q ln p(x | z), at one draw of z            kl    KL(q(z | x) || p(z)), exact
    loss             reconstruction + kl = -ELBO, whatever beta and free bits the training has
    bound            -ln 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x): never below -ln p(x) on average, and nearer to it with every draw

With latent=0 the model is a language model, whose -ln p(x) is exact.

The weights that are kept are those with the least loss on the validation data after the annealing is over. An early model, which the KL
costs nothing yet, or a collapsed one may have less and is not what was asked for; where training ends before the annealing does, the last
weights are kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from minirnn import data as minirnn_data
from minirnn.data import WordVocabulary, bucketed, load_vocabulary
from minirnn.data.kinds import Sentences
from minirnn.data.vocabulary import Vocabulary
from minirnn.decoding import Hypothesis
from minirnn.device import Array
from minirnn.distributions import standard_normal_kl
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.models.chunks import Reader
from minirnn.models.sequence_vae import SequenceVAE, SequenceVAEConfig
from minirnn.models.vae_bounds import ACTIVE, active_units, mutual_information
from minirnn.study.examine import Subject
from minirnn.study.example import Axis
from minirnn.tensor import Tensor
from minirnn.training import extras, latent_pictures, subjects
from minirnn.training.checkpoint import Run
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions
from minirnn.training.verbs import Drawn, Question

VOCABULARY = "vocab.json"
VALIDATED = 1000  # sentences that are judged at each validation, at the most
SAMPLES = 20  # K of the bound where none is given


@dataclass(frozen=True)
class VAETaskConfig(SequenceVAEConfig):
    """Hyper-parameters of the model, and of how text becomes numbers.

    Args:
        min_count: occurrences that make a word known.
        batch_size: sentences per update.
        max_length: sentences of more words are left out of the training, and none longer are written.
    """

    min_count: int = 2
    batch_size: int = 32
    max_length: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_count", "batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class VAETask(Task[VAETaskConfig, Array]):
    name = "vae"
    summary = "a space of sentences: an LSTM encoder and decoder with a random z between, from any sentences; latent=0: a language model"
    config_type = VAETaskConfig
    settled_by_data: ClassVar[frozenset[str]] = frozenset({"vocabulary_size"})
    training = TrainingOptions(lr=1e-3, schedule="linear", warmup=100, clip=5.0, epochs=20)
    default_data = "docstrings"
    metric = Metric("bound", higher_is_better=False)
    demo = Demo(
        data="scenes",
        minutes=2.0,
        title="A sequence VAE learns a continuous space of sentences, from what is said of pictures.",
        settings={
            "embedding": 96,
            "encoder_hidden": 128,
            "decoder_hidden": 192,
            "latent": 16,
            "dropout": 0.1,
            "word_dropout": 0.3,
            "free_bits": 0.4,
            "annealing_steps": 1000,
            "lr": 2e-3,
        },
    )
    evaluation_options: ClassVar[frozenset[str]] = frozenset({"samples", "against"})

    model: SequenceVAE

    def __init__(self, config: VAETaskConfig, data: DataArguments, model: SequenceVAE, vocabulary: Vocabulary) -> None:
        self.config = config
        self.data = data
        self.model = model
        self.vocabulary = vocabulary

    @classmethod
    def build(cls, config: VAETaskConfig, data: DataArguments, seed: int) -> Self:
        text = minirnn_data.source(data.source, data.folder, data.seed, kind=Sentences)
        vocabulary = WordVocabulary.build(text.train, min_count=config.min_count)
        config = dataclasses.replace(config, vocabulary_size=len(vocabulary))
        task = cls(config, data, SequenceVAE(config, rng=seed), vocabulary)
        task.text = text
        return task

    @classmethod
    def restore(cls, config: VAETaskConfig, data: DataArguments, folder: Path) -> Self:
        path = folder / VOCABULARY
        vocabulary = extras.read(path, load_vocabulary)
        extras.check(path, "words", len(vocabulary), config.vocabulary_size)
        return cls(config, data, SequenceVAE(config, rng=0), vocabulary)

    def save_extras(self, folder: Path) -> None:
        write_atomically(folder / VOCABULARY, json.dumps(self.vocabulary.to_json(), ensure_ascii=False))

    @cached_property
    def text(self) -> Sentences:
        return minirnn_data.source(self.data.source, self.data.folder, self.data.seed, kind=Sentences)

    @cached_property
    def _training(self) -> list[Array]:
        """The training sentences as numbers, without the very long."""
        encoded = [self.vocabulary.encode(text) for text in self.text.train]
        return [words for words in encoded if len(words) <= self.config.max_length]

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Array]:
        lengths = [len(words) for words in self._training]
        return bucketed(lengths, lengths, self.config.batch_size, rng)

    def loss(self, batch: Array, step: int) -> Tensor:
        return self.model.loss(self.numbers(batch), step)

    def why_whole(self) -> str | None:
        return f"with latent={self.config.latent} has an encoder that reads whole sentences" if self.config.latent else None

    def reader(self, batch: Array) -> Reader:
        return self.model.reader(self.numbers(batch))

    def numbers(self, batch: Array) -> list[Array]:
        """The sentences of a batch."""
        return [self._training[k] for k in batch]

    def size(self, batch: Array) -> int:
        return sum(len(self._training[k]) + 1 for k in batch)

    def validate(self) -> dict[str, float]:
        scores = self._elbo([self.vocabulary.encode(text) for text in self.text.valid[:VALIDATED]])
        return {"bound": scores["loss"] if self._settled() else math.inf, **scores}

    def _settled(self) -> bool:
        """Whether beta has its last value, so that losses can be compared."""
        config = self.config
        return not config.latent or config.annealing == "none" or self.updates >= config.annealing_steps

    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        """Scores on a split.

        Args:
            samples: K, the draws of z for the bound on each sentence (default: 20).
            against: the run of a language model (latent=0) with the same vocabulary, to be scored on the same sentences.
        """
        samples, against = options.get("samples", SAMPLES), options.get("against")
        texts = getattr(self.text, split)
        sentences = [self.vocabulary.encode(text) for text in texts]
        words = sum(map(len, sentences)) + len(sentences)
        result: dict[str, Any] = {"split": split, "sentences": len(sentences), "words": words}
        if self.config.latent:
            result |= {"bound": self._bound(sentences, samples), "samples": samples, **self._elbo(sentences)}
            q = self.model.posteriors(self._batched(sentences))
            result["mutual_information"] = mutual_information(q, rng=np.random.default_rng(0))
        else:
            result["bound"] = self._elbo(sentences)["loss"]
        result["perplexity"] = math.exp(min(result["bound"] * len(sentences) / words, 700))
        return result if against is None else result | self._beside(against, sentences, result["bound"])

    def _beside(self, folder: Path, sentences: Sequence[Array], bound: float) -> dict[str, Any]:
        """The exact negative log-likelihood of a language model, and by how much `bound` is above it."""
        run = Run.open(folder)
        other = run.task(self.device)
        if not isinstance(other, VAETask) or other.config.latent:
            raise MinirnnError(f"{folder} is no language model; train one: minirnn train vae --set latent=0")
        if other.vocabulary.to_json() != self.vocabulary.to_json():
            raise MinirnnError(f"{folder} has another vocabulary: the data or min_count differ, and likelihoods cannot be compared")
        exact = other._elbo(sentences)["loss"]
        return {
            "against": str(folder),
            "against_loss": exact,
            "against_parameters": other.model.num_parameters(),
            "parameters": self.model.num_parameters(),
            "above": bound / exact - 1,
        }

    def _elbo(self, sentences: Sequence[Array]) -> dict[str, float]:
        """The negative ELBO and its parts at one draw of z that is always the same; of a language model, the exact loss alone."""
        rng, batches = np.random.default_rng(0), list(self._batched(sentences))
        if not self.config.latent:
            return {"loss": -float(np.concatenate([self.model.log_likelihood(batch) for batch in batches]).mean())}
        parts = [self.model.elbo(batch, rng=rng) for batch in batches]
        reconstruction = -float(np.concatenate([part.reconstruction for part in parts]).mean())
        kl = float(np.concatenate([part.kl for part in parts]).sum(1).mean(dtype=np.float64))
        q = self.model.posteriors(batches)
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl, "active_units": active_units(q)}

    def _bound(self, sentences: Sequence[Array], samples: int) -> float:
        rng = np.random.default_rng(1)
        bounds = [self.model.importance_weighted(batch, samples, rng=rng) for batch in self._batched(sentences)]
        return -float(np.concatenate(bounds).mean())

    def _batched(self, sentences: Sequence[Array]) -> Iterator[list[Array]]:
        """Sentences of similar length together."""
        ordered = sorted(sentences, key=len)
        for start in range(0, len(ordered), self.config.batch_size):
            yield ordered[start : start + self.config.batch_size]

    def sample(self, count: int, rng: np.random.Generator, folder: Path, *, temperature: float = 1.0, length: int | None = None) -> Drawn:
        """Sentences from the model: z from the prior, words from p(x | z). `length` is the most words that a sentence may have."""
        found = self.model.sample(count, temperature=temperature, max_length=length or self.config.max_length, rng=rng)
        return Drawn(texts=self._texts(found))

    def reconstruct(self, texts: Sequence[str]) -> list[str]:
        """The most probable words, one after the other, at the mean of each text's posterior."""
        self._need_latent("reconstruct")
        return self._at(self.model.posteriors([[self._encode(text) for text in texts]]).mean.data) if texts else []

    def interpolate(self, first: str, second: str, steps: int) -> list[str]:
        self._need_latent("interpolate")
        if steps < 2:
            raise MinirnnError(f"interpolate needs at least 2 steps, the two ends, not {steps}")
        return self._texts(self.model.interpolate(self._encode(first), self._encode(second), steps))

    def _at(self, z: Array) -> list[str]:
        """What the model says at points z (B, Z)."""
        return self._texts(self.model.decode(z, max_length=self.config.max_length))

    def _texts(self, found: Sequence[Hypothesis]) -> list[str]:
        return [self.vocabulary.decode(hypothesis.tokens) for hypothesis in found]

    def _encode(self, text: str) -> Array:
        words = self.vocabulary.encode(text)
        if not len(words):
            raise MinirnnError(f"there is nothing to read in {text!r}: no word and no mark")
        return words

    def _need_latent(self, verb: str) -> None:
        if not self.config.latent:
            raise MinirnnError(f"a language model (latent=0) has no space of sentences, and cannot {verb}")

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        texts, rng = getattr(self.text, split), np.random.default_rng(0)
        chosen = [texts[k] for k in rng.choice(len(texts), min(count, len(texts)), replace=False)]
        if not self.config.latent:
            drawn = self.sample(len(chosen), rng, Path()).texts
            return [{"sentence": sentence, "a sample": other} for sentence, other in zip(chosen, drawn, strict=True)]
        back, random = self.reconstruct(chosen), self._at(rng.standard_normal((len(chosen), self.config.latent)))
        return [
            {"sentence": sentence, "through z and back": again, "at a random z": other}
            for sentence, again, other in zip(chosen, back, random, strict=True)
        ]

    def study(self, asked: Question) -> Subject:
        """A sentence, read and written again; of a language model, written."""
        subjects.refuse_target(asked, self.name)
        text = asked.given if asked.given is not None else subjects.chosen(getattr(self.text, asked.split), asked, "sentences")
        ids, labels = subjects.encoded(text, self.vocabulary, asked, "the input")
        read = {"read": Axis("sentence", "tokens", [*labels, subjects.END])} if self.config.latent else {}
        return Subject(
            title="A sequence VAE at work" if read else "A language model at work",
            text=text,
            note="The last loss step is the KL. z is one draw from q(z | x), and the losses are minus the ELBO there." if read else "",
            model=self.name,
            terms=lambda: self.model.terms(ids, rng=asked.seed),
            inputs={**read, "written": subjects.before(labels)},
            output="written again" if read else "sentence",
            labels=[*labels, subjects.END, *(["KL"] if read else [])],
            say=lambda predicted: subjects.spelt(predicted, self.vocabulary),
            under={"encoder": "sentence", "decoder": subjects.BEFORE if read else "sentence"},  # of the loss steps the KL has no time step
            starts={"decoder": "encoder"} if read else {},
        )

    def describe(self) -> str:
        text = self.text
        latent = f"{self.config.latent} dimensions of z" if self.config.latent else "a language model without z"
        return (
            f"{len(text.train):,} sentences from {text.name}, such as {text.train[0]!r}.\n"
            f"{text.attribution}\n"
            f"{self.model.num_parameters():,} parameters; {self.config.vocabulary_size:,} words; {latent}."
        )

    def pictures(self, folder: Path) -> list[Path]:
        """latent.png: the KL of every dimension of z; annealing.png: KL and reconstruction over the updates."""
        if not self.config.latent:
            return []
        batches = self._batched([self.vocabulary.encode(text) for text in self.text.valid[:VALIDATED]])
        q = self.model.posteriors(batches)
        kl = standard_normal_kl(q, by_dimension=True).numpy().mean(0)
        drawn = [latent_pictures.dimensions(kl, q.mean.numpy().var(0) > ACTIVE, folder / "latent.png")]
        rows = Run.open(folder).read_metrics()
        if any("valid" in row for row in rows):
            drawn.append(latent_pictures.annealing(rows, self.config.beta_at, folder / "annealing.png"))
        return drawn

    def hints(self, folder: Path) -> list[list[str]]:
        sample, study = ["sample", str(folder), "--temperature", "0.7"], ["study", str(folder)]
        if not self.config.latent:
            return [sample, study]
        first, second = sorted(self.text.test[:20], key=len)[-12:-10]
        return [sample, ["reconstruct", str(folder), first], ["interpolate", str(folder), first, second], study]
