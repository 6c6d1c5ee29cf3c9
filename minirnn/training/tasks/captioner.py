"""Learning to say what is on a picture: `Captioner`, judged by BLEU, exact matches, and what its captions say slot by slot."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from minirnn import data as minirnn_data
from minirnn.data import Vocabulary, WordVocabulary, images, load_vocabulary
from minirnn.data.kinds import CaptionedPictures, Pictures
from minirnn.device import Array
from minirnn.files import write_atomically
from minirnn.models.captioner import CaptionBatch, Captioner, CaptionerConfig
from minirnn.study.examine import Subject
from minirnn.tensor import Tensor
from minirnn.training import extras, subjects
from minirnn.training.caption_scores import References, agrees, majority, nearest, object_pair, sacrebleu, slot_scores, text_scores
from minirnn.training.captioner_pictures import Judged, looks, sheet
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions
from minirnn.training.verbs import Caption, Question

VOCABULARY = "vocab.json"
VALIDATED = 200  # pictures that are captioned at each validation, at the most
NEIGHBOURS = 4000  # training pictures among which the nearest one is looked for, at the most
SHOWN = 12  # pictures on the contact sheet
READING = ("to the left of", "above")  # how what is read first stands to what comes after


@dataclass(frozen=True)
class CaptioningConfig(CaptionerConfig):
    """Hyper-parameters of the model, and of how captions become numbers.

    Args:
        min_count: occurrences that make a word known.
        max_length: captions with more words are left out of the training.
        batch_size: pictures per update.
        reading_order: of the captions of a picture that say how two objects stand to each other, teach only those that begin with what is
            on the left or on top, so that the picture decides the order. Free text is taught as it is, another caption each time.
    """

    min_count: int = 2
    max_length: int = 40
    batch_size: int = 16
    reading_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_count", "max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Examples:
    """The numbers of the training pictures of one batch, and the seed of the choice among their captions."""

    numbers: Array
    seed: int


class CaptionerTask(Task[CaptioningConfig, Examples]):
    name = "captioner"
    summary = "a convolutional network and an LSTM with attention, from pictures with captions"
    config_type = CaptioningConfig
    settled_by_data: ClassVar[frozenset[str]] = frozenset({"vocabulary_size", "picture_size"})
    training = TrainingOptions(lr=1.5e-3, schedule="linear", warmup=200, clip=5.0, epochs=10)
    default_data = "scenes"
    metric = Metric("bleu4", higher_is_better=True)
    demo = Demo(
        data="scenes",
        minutes=3,
        title="A convolutional network and an LSTM with attention learn to say what is on little scenes.",
        settings={"validate_every": 400},
    )
    unit = "pictures"
    evaluation_options: ClassVar[frozenset[str]] = frozenset({"beam", "length_penalty"})

    def __init__(self, config: CaptioningConfig, data: DataArguments, model: Captioner, vocabulary: Vocabulary) -> None:
        self.config = config
        self.data = data
        self.model: Captioner = model
        self.vocabulary = vocabulary

    @classmethod
    def build(cls, config: CaptioningConfig, data: DataArguments, seed: int) -> Self:
        sacrebleu()  # the first validation would be late to find that it is missing
        pictures = minirnn_data.source(data.source, data.folder, data.seed, kind=CaptionedPictures)
        train = pictures.train
        vocabulary = WordVocabulary.build((c for k in range(len(train)) for c in train.captions(k)), config.min_count)
        config = dataclasses.replace(config, vocabulary_size=len(vocabulary), picture_size=train.images([0]).shape[-1])
        task = cls(config, data, Captioner(config, rng=seed), vocabulary)
        task.pairs = pictures
        return task

    @classmethod
    def restore(cls, config: CaptioningConfig, data: DataArguments, folder: Path) -> Self:
        path = folder / VOCABULARY
        vocabulary = extras.read(path, lambda stored: load_vocabulary(stored["words"]))
        extras.check(path, "pieces", len(vocabulary), config.vocabulary_size)
        return cls(config, data, Captioner(config, rng=0), vocabulary)

    def save_extras(self, folder: Path) -> None:
        write_atomically(folder / VOCABULARY, json.dumps({"words": self.vocabulary.to_json()}, ensure_ascii=False))

    @cached_property
    def pairs(self) -> CaptionedPictures:
        return minirnn_data.source(self.data.source, self.data.folder, self.data.seed, kind=CaptionedPictures)

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Examples]:
        """The training pictures in random order; where there is no end of pictures, each epoch has new ones."""
        count, size = len(self.pairs.train), self.config.batch_size
        numbers = rng.permutation(count) + (epoch * count if self.pairs.endless else 0)
        parts = [numbers[begin : begin + size] for begin in range(0, count, size)]
        return [Examples(part, int(seed)) for part, seed in zip(parts, rng.integers(2**32, size=len(parts)), strict=True)]

    def why_whole(self) -> str | None:
        return "looks at its pictures once for a whole caption"

    def loss(self, batch: Examples, step: int) -> Tensor:
        return self.model.loss(self.numbers(batch))

    def size(self, batch: Examples) -> int:
        return len(batch.numbers)

    def numbers(self, batch: Examples) -> CaptionBatch:
        """The pictures of a batch, each with one of its captions, drawn by the seed of the batch."""
        rng, train, most = np.random.default_rng(batch.seed), self.pairs.train, self.config.max_length
        chosen = []
        for k in batch.numbers.tolist():
            captions = self._taught(train.captions(k))
            chosen.append(self.vocabulary.encode(captions[int(rng.integers(len(captions)))])[:most])
        return CaptionBatch(train.images(batch.numbers), chosen)

    def _taught(self, captions: Sequence[str]) -> Sequence[str]:
        slots = self.pairs.slots
        if slots is None or not self.config.reading_order:
            return captions
        return [caption for caption in captions if slots(caption).get("relation") in READING] or captions

    def caption(self, paths: Sequence[Path], *, beam: int = 1, length_penalty: float = 1.0) -> list[Caption]:
        """What the model says of picture files, of any size."""
        pictures = np.stack([images.read(path, self.config.picture_size) for path in paths])
        return self.say(pictures, beam=beam, length_penalty=length_penalty)

    def say(self, pictures: Array, **options: Any) -> list[Caption]:
        """What the model says of pictures (N, 3, S, S)."""
        found = self.model.caption(pictures, max_length=self.config.max_length + 1, **options)
        return [
            Caption(self.vocabulary.decode(h.tokens), [self.vocabulary.piece(k) for k in h.tokens], h.score, h.attention, image)
            for h, image in zip(found, pictures, strict=True)
        ]

    def validate(self) -> dict[str, float]:
        part, count = self.pairs.valid, min(VALIDATED, len(self.pairs.valid))
        captions, references, likelihood = self._read(part, count, {})
        scores = {**likelihood, **text_scores(captions, references)}
        if self.pairs.slots is not None:
            scores["objects"] = slot_scores(captions, references, self.pairs.slots).get("objects", math.nan)
        return scores

    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        part: Pictures = getattr(self.pairs, split)
        captions, references, likelihood = self._read(part, len(part), options)
        result: dict[str, Any] = {"split": split, "pictures": len(part), **likelihood, **self._scores(captions, references), **options}
        if self.pairs.slots is not None:
            result |= self._by_pairs(captions, references)
        return result | {"baselines": self._baselines(part, captions, references)}

    def _read(self, part: Pictures, count: int, options: dict[str, Any]) -> tuple[list[str], References, dict[str, float]]:
        """The model's captions of the first `count` pictures, the references, and the mean loss per word of the first one taught."""
        captions: list[str] = []
        references = [part.captions(k) for k in range(count)]
        total, tokens, size = 0.0, 0, 64
        for begin in range(0, count, size):
            numbers = range(begin, min(count, begin + size))
            batch = CaptionBatch(part.images(numbers), [self.vocabulary.encode(self._taught(references[k])[0]) for k in numbers])
            captions += [said.text for said in self.say(batch.images, **options)]
            total -= float(self.model.log_likelihood(batch).sum())
            tokens += batch.tokens
        return captions, references, {"loss": total / tokens, "perplexity": math.exp(min(total / tokens, 700))}

    def _scores(self, captions: Sequence[str], references: References) -> dict[str, Any]:
        scores = text_scores(captions, references)
        return scores if self.pairs.slots is None else {**scores, "slots": slot_scores(captions, references, self.pairs.slots)}

    def _by_pairs(self, captions: Sequence[str], references: References) -> dict[str, Any]:
        """Objects and exact matches, apart for the pictures with two objects that no training picture of the first epoch shows together."""
        slots, train = self.pairs.slots, self.pairs.train
        assert slots is not None
        known = {object_pair(train.captions(k)[0], slots) for k in range(len(train))}
        new = [object_pair(r[0], slots) not in known | {None} for r in references]
        groups = {"unseen pairs": np.flatnonzero(new).tolist(), "all others": np.flatnonzero(~np.array(new)).tolist()}
        result = {}
        for name, chosen in groups.items():
            if chosen:
                said, wanted = [captions[k] for k in chosen], [references[k] for k in chosen]
                exact = 100 * float(np.mean([agrees(c, r) for c, r in zip(said, wanted, strict=True)]))
                result[name] = {
                    "pictures": len(chosen),
                    "objects": slot_scores(said, wanted, slots).get("objects", math.nan),
                    "exact": exact,
                }
        return result

    def _baselines(self, part: Pictures, captions: Sequence[str], references: References) -> dict[str, Any]:
        """The same scores for captions that need no model, and for the model's captions of other pictures than those they are judged on."""
        train, count = self.pairs.train, len(part)
        among = min(NEIGHBOURS, len(train))
        copied = [train.captions(k)[0] for k in nearest(part.images(range(count)), train, among)]
        order, other = np.random.default_rng(0).permutation(count), np.empty(count, np.int64)
        other[order] = np.roll(order, 1)  # no picture's own
        shuffled = [captions[k] for k in other.tolist()]
        common = majority(train)
        return {
            "majority caption": {"caption": common, **self._scores([common] * count, references)},
            "nearest training picture": {"among": among, **self._scores(copied, references)},
            "shuffled pictures": self._scores(shuffled, references),
        }

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        judged = self._judged(getattr(self.pairs, split), count)
        return [
            {"picture": f"{split} {k}", "caption": example.caption, "": "right" if example.right else "", "reference": example.reference}
            for k, example in judged.items()
        ]

    def _judged(self, part: Pictures, count: int) -> dict[int, Judged]:
        """A few pictures, by number, with what the model says of them."""
        numbers = np.sort(np.random.default_rng(0).choice(len(part), min(count, len(part)), replace=False)).tolist()
        pictures = part.images(numbers)
        found = {}
        for k, image, said in zip(numbers, pictures, self.say(pictures), strict=True):
            references = part.captions(k)
            right = agrees(said.text, references)
            found[k] = Judged(image, said.text, said.text if right else references[0], right)
        return found

    def study(self, asked: Question) -> Subject:
        """A picture with the caption that is given, or with the model's own; or one of the data with one of its captions."""
        wanted, where = asked.target, asked.given or f"{asked.split} picture {asked.index}"
        if asked.given is not None:
            image = images.read(Path(asked.given), self.config.picture_size)
        else:
            part: Pictures = getattr(self.pairs, asked.split)
            (image,) = part.images([subjects.number(len(part), asked, "pictures")])
            wanted = self._taught(part.captions(asked.index))[0] if wanted is None else wanted
        note = ""
        if wanted is None:
            (found,) = self.model.caption(image[None], beam=asked.beam, max_length=self.config.max_length + 1)
            words, said, note = found.tokens, subjects.spelt(found.tokens, self.vocabulary), subjects.own(found)
        else:
            words, said = subjects.encoded(wanted, self.vocabulary, asked, "the target")
        return Subject(
            title="A captioner at work",
            text=f"{where}: {self.vocabulary.join(said)}",
            note=note,
            model=self.name,
            terms=lambda: self.model.terms(image, words),
            inputs={"picture": subjects.patches(image, self.model.encoder.side), "caption": subjects.before(said)},
            output="caption",
            labels=[*said, subjects.END],
            say=lambda predicted: subjects.spelt(predicted, self.vocabulary),
            under={"decoder": "caption"},
        )

    def describe(self) -> str:
        pairs = self.pairs
        count = f"{len(pairs.train):,} pictures" + (" an epoch, always new ones," if pairs.endless else "")
        return (
            f"{count} from {pairs.name}, with captions such as {pairs.train.captions(0)[0]!r}.\n"
            f"{pairs.attribution}\n"
            f"{self.model.num_parameters():,} parameters; a vocabulary of {self.config.vocabulary_size:,}."
        )

    def pictures(self, folder: Path) -> list[Path]:
        """samples.png: test pictures with captions; looks.png: where the words of one looked; picture.png: that one alone, to try with."""
        judged = self._judged(self.pairs.test, SHOWN)
        drawn = [sheet(list(judged.values()), self.pairs.attribution, folder / "samples.png")]
        longest = max(judged.values(), key=lambda example: len(example.caption))
        images.write(folder / "picture.png", longest.image)
        (said,) = self.say(longest.image[None])
        if said.attention is not None:
            drawn.append(looks(said.image, [*said.words, "(end)"][: len(said.attention)], said.attention, folder / "looks.png"))
        return drawn

    def hints(self, folder: Path) -> list[list[str]]:
        picture = folder / "picture.png"
        if not picture.exists():
            return []
        caption = ["caption", str(folder), str(picture)]
        return [caption, [*caption, "--beam", "5", "--show-attention"], ["study", str(folder), "--input", str(picture)]]
