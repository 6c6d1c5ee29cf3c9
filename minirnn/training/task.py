"""What the training loop, the checkpoints and the command line need to know of a model: a `Task`, one class per model.

A task is a model together with its data and its scores. The loop calls

    task = MyTask.build(config, data, seed)             # reads the data, makes vocabularies and a new model
    for epoch in ...:
        for batch in task.batches(epoch, rng):          # descriptors; resuming skips the first k of them
            task.loss(batch, step).backward()
        task.validate()[task.metric.name]               # decides which weights are the best

and the command line, later and from the run's folder alone,

    task = MyTask.restore(config, data, folder)         # no data read until they are asked for
    task.evaluate("test", beam=4)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    from minirnn.models.chunks import Reader
    from minirnn.nn import Module
    from minirnn.tensor import Tensor

Config = TypeVar("Config")
Batch = TypeVar("Batch")

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class DataArguments:
    """Where a run's data come from.

    Args:
        source: the name of a data set, or a path.
        folder: where downloaded files lie (`--data-dir`), beside $MINIRNN_DATA and the cache.
        seed: of what the source draws: its splits. Not the seed of the run, so that every run is judged on the same examples.
    """

    source: str
    folder: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Metric:
    """The validation score that decides which weights are the best."""

    name: str
    higher_is_better: bool

    def better(self, new: float, old: float | None) -> bool:
        """Whether `new` is an improvement: at first, and over what is infinitely bad, anything but a NaN is."""
        worst = -math.inf if self.higher_is_better else math.inf
        return new == new and (old in (None, worst) or (new > old if self.higher_is_better else new < old))


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained; a task gives its own defaults, the user changes them with `--set key=value`.

    Args:
        optimizer, lr, weight_decay: the update rule.
        schedule: how lr goes on after the warm-up: down to zero at the end of the budget as a line or a cosine, or halved each time
            that a validation brings no improvement (plateau).
        warmup: updates over which lr rises from zero.
        clip: the largest norm of the gradient; 0 leaves it as it is.
        average: the decay per update of the exponential moving average of the weights that is validated and kept; 0 keeps the weights.
        epochs: the most passes over the data.
        minutes: the most minutes of training, validations included, summed over all the parts of a resumed run; 0 is no limit.
        patience: validations without improvement after which training stops; 0 is never.
        validate_every: updates between validations; 0 validates at the end of each epoch.
        bptt: K1,K2: sequences are read in chunks, with an update after every K1 steps, each back-propagating through the last K2 >= K1
            (see `minirnn.models.chunks`); K1 alone is K1,K1; nothing is whole sequences, an update a batch.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    warmup: int = 0
    clip: float = 1.0
    average: float = 0.0
    epochs: int = 10
    minutes: float = 0.0
    patience: int = 0
    validate_every: int = 0
    bptt: str = ""

    def __post_init__(self) -> None:
        _ = self.chunk_steps
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must lie in [0, 1), got {self.average}")
        for name in ("weight_decay", "warmup", "clip", "epochs", "minutes", "patience", "validate_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def chunk_steps(self) -> tuple[int, int] | None:
        """k1 and k2 of `bptt`."""
        if not self.bptt:
            return None
        numbers = [int(text) if text.strip().isascii() and text.strip().isdigit() else 0 for text in self.bptt.split(",")]
        k1, k2 = (numbers * 2)[:2]
        if len(numbers) > 2 or not 1 <= k1 <= k2:
            raise ValueError(f"bptt must be two numbers of steps K1,K2 with 1 <= K1 <= K2, as in 20,40, or one for both; got {self.bptt!r}")
        return k1, k2


@dataclass(frozen=True)
class Demo:
    """What `minirnn demo NAME` does.

    Args:
        data: the data set.
        minutes: of training.
        settings: changes to the defaults, as `--set` takes them.
        title: one sentence for the newcomer: what is going to be learnt from what.
        examples: what the examples that are shown afterwards are.
        scored: and what the scores are of.
    """

    data: str
    minutes: float
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    examples: str = "Examples that were not in the training"
    scored: str = "Scores on all such examples"


class Task(ABC, Generic[Config, Batch]):
    """A model with its data and its scores. Class attributes describe it, `build` and `restore` make one."""

    name: ClassVar[str]  # on the command line
    summary: ClassVar[str]  # one line for `minirnn train --help`
    config_type: ClassVar[type[Any]]  # the frozen dataclass of hyper-parameters; every field has a default and can be `--set`
    settled_by_data: ClassVar[frozenset[str]] = frozenset()  # fields of `config_type` that `build` overwrites; help does not show them
    training: ClassVar[TrainingOptions] = TrainingOptions()  # the model's own defaults
    for_data: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # other defaults for some data sets, by name, as `--set` takes them
    default_data: ClassVar[str]  # what `--data` is when it is not given
    metric: ClassVar[Metric]
    demo: ClassVar[Demo]
    evaluation_options: ClassVar[frozenset[str]] = frozenset()  # keywords of `evaluate` that the command line may pass, as "beam"

    model: Module
    data: DataArguments
    updates: int = 0  # that the model has seen, as the loop says before each validation
    config: Config  # with what `build` took from the data, as sizes of vocabularies: this one is saved, and given to `restore`

    @property
    def device(self) -> str:
        """Where the model computes: where its parameters live."""
        return next(self.model.parameters()).device

    @classmethod
    @abstractmethod
    def build(cls, config: Config, data: DataArguments, seed: int) -> Self:
        """A new model for the data: everything that is drawn (initial weights, generators of dropout) follows from `seed`."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Config, data: DataArguments, folder: Path) -> Self:
        """A model of the right shapes with what `save_extras` wrote to `folder`; the weights and generators are loaded by the caller.

        The data are read when `batches`, `validate`, `evaluate` or `samples` first needs them, so that the other uses work without.
        Raises MinirnnError where a file is missing or damaged.
        """

    def save_extras(self, folder: Path) -> None:
        """Write what the weights cannot say, as `vocab.json`, with `minirnn.files.write_atomically`. Called once, before training."""
        return

    @abstractmethod
    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Batch]:
        """All batches of an epoch, in order, as light descriptors (example numbers); `rng` is new for each seed and epoch.

        What a batch draws in `loss` outside of the model's own generators must come from its descriptor (a seed in it), so that
        a resumed run draws the same.
        """

    @abstractmethod
    def loss(self, batch: Batch, step: int) -> Tensor:
        """The scalar to be minimised, per token or example; `step` counts the updates so far, for annealing."""

    def why_whole(self) -> str | None:
        """Why sequences cannot be read in chunks, for `bptt`, as it goes on after the task's name; None where they can, by `reader`."""
        return "does not read its sequences step by step"

    def reader(self, batch: Batch) -> Reader:
        """A batch in chunks of steps. Called again for the same batch where training is resumed within it."""
        raise NotImplementedError

    def update(self, batch: Batch, step: int) -> float | None:
        """Learn from a batch by another way than the gradient, as EM does: change the model in place, and give the loss before.

        None, the default, leaves it to `loss` and the optimiser.
        """
        return None

    @abstractmethod
    def size(self, batch: Batch) -> int:
        """Tokens (or frames, or examples) in a batch, for the speed shown and as the weight of its loss in averages."""

    unit: ClassVar[str] = "tokens"  # what `size` counts

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Scores on the validation data by name, `metric.name` among them, and "loss", which decides between equals.

        While the loss is not yet the one that counts, as in annealing, the metric may be infinitely bad: then any later one is better.
        Called in evaluation mode and without gradients; draws nothing.
        """

    @abstractmethod
    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        """All scores on a split, ready for JSON; `options` are among `evaluation_options`. Evaluation mode, no gradients."""

    @abstractmethod
    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        """A few examples as rows of a table, column by name, such as source, output, reference."""

    def describe(self) -> str:
        """What is learnt from what, in a few lines for the demo: the data with whom to credit, the model's size."""
        return f"{type(self.model).__name__} with {self.model.num_parameters():,} parameters learns from {self.data.source}"

    def pictures(self, folder: Path) -> list[Path]:
        """Draw what shows how the model works into the run's folder; the paths. Needs Matplotlib, and may be empty."""
        return []

    def hints(self, folder: Path) -> list[list[str]]:
        """What one would call `minirnn` with next: lists of arguments, such as translate, RUN, and a text."""
        return []
