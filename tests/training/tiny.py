"""A task that trains in a blink: an LSTM that predicts the sum of a short series, with dropout, so that everything random takes part.

Beside it, how the run of any task goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from minirnn import ops
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically
from minirnn.nn import LSTM, Dropout, Linear, Module
from minirnn.random import generator
from minirnn.tensor import Tensor, tensor
from minirnn.training import DataArguments, Demo, Metric, Run, Split, Task, Trainer, TrainingOptions, registry
from minirnn.training.loop import Outcome

TRAIN, VALID = 48, 16


@dataclass(frozen=True)
class TinyConfig:
    hidden: int = 8
    batch_size: int = 8
    dropout: float = 0.2
    poison: int = -1  # the update at which the squared error overflows
    features: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")


class TinyModel(Module):
    def __init__(self, config: TinyConfig, rng: np.random.Generator) -> None:
        self.lstm = LSTM(config.features, config.hidden, rng=rng)
        self.dropout = Dropout(config.dropout, rng=np.random.default_rng(rng.integers(2**32)))
        self.output = Linear(config.hidden, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.lstm(x)  # x (T, N, D)
        return self.output(self.dropout(h[0]))[:, 0]  # (N,)


class TinyTask(Task[TinyConfig, Any]):
    name = "tiny"
    summary = "sums of short series"
    config_type = TinyConfig
    training = TrainingOptions(lr=1e-2, epochs=2)
    default_data = "sums"
    metric = Metric("loss", higher_is_better=False)
    demo = Demo(data="sums", minutes=0.01, title="An LSTM learns to add.")
    unit = "series"

    def __init__(self, config: TinyConfig, data: DataArguments, seed: int) -> None:
        self.config, self.data = config, data
        self.model = TinyModel(config, np.random.default_rng(seed))

    @classmethod
    def build(cls, config: TinyConfig, data: DataArguments, seed: int) -> Self:
        if data.source != "sums":
            raise MinirnnError(f"unknown data set {data.source!r}")
        return cls(TinyConfig(**{**vars(config), "features": 2}), data, seed)

    @classmethod
    def restore(cls, config: TinyConfig, data: DataArguments, folder: Path) -> Self:
        if not (folder / "vocab.json").is_file():
            raise MinirnnError(f"{folder / 'vocab.json'} is missing")
        return cls(config, data, seed=999)

    def save_extras(self, folder: Path) -> None:
        write_atomically(folder / "vocab.json", json.dumps({"features": self.config.features}))

    def examples(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        x = np.random.default_rng(SPLIT_SEEDS[split]).standard_normal((5, TRAIN if split == "train" else VALID, 2)).astype(np.float32)
        return x, x.sum(axis=(0, 2))

    def batches(self, epoch: int, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(TRAIN)
        return [order[k : k + self.config.batch_size] for k in range(0, TRAIN, self.config.batch_size)]

    def loss(self, batch: np.ndarray, step: int) -> Tensor:
        x, y = self.examples("train")
        x = x[:, batch] + 0.01 * generator(None).standard_normal((5, len(batch), 2)).astype(np.float32)  # the default generator
        wanted = y[batch] * np.float32(1e30 if step == self.config.poison else 1.0)
        return self.error(tensor(x), wanted)

    def error(self, x: Tensor, y: np.ndarray) -> Tensor:
        difference = self.model(x) - tensor(y)
        return ops.mean(difference * difference)

    def size(self, batch: np.ndarray) -> int:
        return len(batch)

    def validate(self) -> dict[str, float]:
        x, y = self.examples("valid")
        return {"loss": self.error(tensor(x), y).item()}

    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        x, y = self.examples(split)
        return {"split": split, "loss": self.error(tensor(x), y).item(), **options}

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        x, y = self.examples(split)
        found = self.model(tensor(x)).numpy()
        return [{"sum": f"{y[k]:.2f}", "found": f"{found[k]:.2f}"} for k in range(count)]


def resume(folder: Path) -> tuple[Any, Outcome]:
    """A run goes on from where it stopped, to its end: its task, and how that went."""
    run = Run.open(folder)
    with run.lock():
        task, arrays, state = run.resume()
        trainer = Trainer(task, run.training, run.seed, run)
        trainer.load(arrays, state, run.read_metrics(up_to=state.step))
        return task, trainer.fit()


SPLIT_SEEDS = {"train": 1, "valid": 2, "test": 3}

if "tiny" not in registry.names():
    registry.register(TinyTask)
