"""A run's folder: what was trained, on what, how far, and with which weights.

    config.json           model, hyper-parameters, data, seed, versions: written once
    vocab.json            and whatever else the task's `save_extras` writes
    model.safetensors     the weights with the best validation score
    last.safetensors      where training stands: weights, optimiser, averages, within a batch the recurrent state that is carried on, and,
                          in the header, the `TrainingState`
    metrics.jsonl         one line for each stretch of training and each validation
    curve.png             the same as a picture

Every file is replaced whole or not at all. What must fit together lies in one file, so that a run killed at any moment can go on.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minirnn import serialization
from minirnn._version import __version__
from minirnn.device import device
from minirnn.errors import MinirnnError
from minirnn.files import LOCK_NAME, lock_folder, write_atomically
from minirnn.random import manual_seed
from minirnn.training import registry
from minirnn.training.settings import from_json
from minirnn.training.task import DataArguments, Task, TrainingOptions

if TYPE_CHECKING:
    from minirnn.nn import Module

CONFIG, BEST, LAST, METRICS, CURVE = "config.json", "model.safetensors", "last.safetensors", "metrics.jsonl", "curve.png"
FORMAT = 1
_SHOWN = 3  # names in an error message

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass
class TrainingState:
    """Where training stands. Everything that the next update depends on, beside the arrays.

    Args:
        step: updates so far.
        epoch, batch: the next batch is number `batch` of epoch `epoch`.
        batches: how many batches the epoch has: other data show here.
        chunk, chunks: with `bptt` the next chunk of this batch, and how many it has.
        validated: the step of the last validation.
        elapsed: seconds of training, validations included, over all the parts of the run.
        best, best_loss, best_step: the best validation score (of equal ones that with the lower loss), its loss, and when it was.
        stale: validations since then.
        lr_scale: what the plateau schedule has left of the learning rate.
        loss, norm, size: sums since the last line of metrics: loss weighted by size, norm of the gradient, size.
        updates: how many updates these sums hold.
        random: the states of the generators by name.
        optimizer: what the optimiser holds beside its arrays.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches: int = 0
    chunk: int = 0
    chunks: int = 1
    validated: int = 0
    elapsed: float = 0.0
    best: float | None = None
    best_loss: float = 0.0
    best_step: int = 0
    stale: int = 0
    lr_scale: float = 1.0
    loss: float = 0.0
    norm: float = 0.0
    size: int = 0
    updates: int = 0
    random: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> float:
        """Over the data so far, parts of one included."""
        return self.epoch + (self.batch + self.chunk / self.chunks) / max(1, self.batches)


@dataclass(frozen=True)
class Run:
    """A run's folder and what its `config.json` says. `open` reads one.

    `device` is where it was trained last. It binds nobody: weights and states are NumPy arrays on disk, and go to any device.
    """

    folder: Path
    model: str
    config: Any
    training: TrainingOptions
    data: DataArguments
    seed: int
    device: str = "cpu"
    kernel: str | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in a folder. Raises MinirnnError where there is none, and for a `config.json` that is damaged or not of minirnn's."""
        path = Path(folder)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise MinirnnError(f"{path} {what}; the folder of a run is needed, as minirnn train makes it")
        file = path / CONFIG
        if not file.is_file():
            raise MinirnnError(f"{path} is not the folder of a run: it has no {CONFIG}; minirnn train makes such folders")
        content = read_json(file)
        if not isinstance(content, dict) or "model" not in content or "format" not in content:
            raise MinirnnError(f"{file} does not describe a run of minirnn: it has no 'model' and 'format'")
        if content["format"] != FORMAT:
            raise MinirnnError(f"{file} has format {content['format']}, this minirnn ({__version__}) reads format {FORMAT}")
        task = registry.find(str(content["model"]))
        try:
            return cls(
                folder=path,
                model=task.name,
                config=from_json(task.config_type, content["config"], f"{file}: config"),
                training=from_json(TrainingOptions, content["training"], f"{file}: training"),
                data=from_json(DataArguments, content["data"], f"{file}: data"),
                seed=int(content["seed"]),
                device=content["device"],
                kernel=content["kernel"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MinirnnError(f"{file}: {error} is missing or wrong; the file was changed or cut short") from error

    def lock(self) -> AbstractContextManager[None]:
        """For as long as something is written to the folder; a second process gets a MinirnnError."""
        return lock_folder(self.folder)

    def start(self) -> Task[Any, Any]:
        """A new task with new weights, both from the run's seed, on the run's device. Reads the data; writes nothing."""
        manual_seed(self.seed)
        with device("cpu"):  # where all runs begin, so that they begin alike
            task = registry.find(self.model).build(self.config, self.data, self.seed)
        task.model.to(self.device)
        return task

    def write_start(self, task: Task[Any, Any]) -> None:
        """Write `config.json` and the task's extras, into a folder that is locked and holds no other run."""
        check_free(self.folder)
        task.save_extras(self.folder)
        self.write_config(task)

    @contextmanager
    def begun(self, task: Task[Any, Any]) -> Iterator[None]:
        """`write_start`, and if the block fails before the first checkpoint the folder is free again: there is nothing to keep."""
        self.write_start(task)
        written = {file.name for file in self.folder.iterdir()} - {LOCK_NAME} | {METRICS}
        try:
            yield
        except BaseException:
            if not (self.folder / LAST).exists():
                for name in written:
                    (self.folder / name).unlink(missing_ok=True)
            raise

    def write_config(self, task: Task[Any, Any]) -> None:
        """Write `config.json`: the task's hyper-parameters, and all that `open` needs to find the run again."""
        described = {
            "format": FORMAT,
            "model": self.model,
            "config": asdict(task.config),
            "training": asdict(self.training),
            "data": asdict(self.data),
            "seed": self.seed,
            "device": self.device,
            "kernel": self.kernel,
            "versions": {"minirnn": __version__, "numpy": np.__version__, "python": platform.python_version()},
        }
        write_atomically(self.folder / CONFIG, json.dumps(described, indent=2) + "\n")  # in ASCII: a path may be no text

    def task(self, where: str = "cpu") -> Task[Any, Any]:
        """The trained task on a device, which need not be the one that it was trained on: the best weights, in evaluation mode."""
        with device("cpu"):
            task = registry.find(self.model).restore(self.config, self.data, self.folder)
            self.load_best(task)
        task.model.to(where)
        return task

    def load_best(self, task: Task[Any, Any]) -> None:
        """Give a task of this run the best weights, and put it in evaluation mode."""
        if not (self.folder / BEST).is_file():
            raise MinirnnError(
                f"{self.folder} has no {BEST}: training stopped before its first validation; go on: minirnn train --resume {self.folder}"
            )
        load_weights(task.model, serialization.load(self.folder / BEST), self.folder / BEST)
        task.model.eval()

    def resume(self) -> tuple[Task[Any, Any], Arrays, TrainingState]:
        """The task as training left it, on the run's device, all arrays of `last.safetensors` by prefixed name, and the state."""
        file = self.folder / LAST
        if not file.is_file():
            raise MinirnnError(f"{self.folder} has no {LAST}: there is nothing to resume; train again into another folder")
        arrays = serialization.load(file)
        try:
            state = TrainingState(**json.loads(serialization.load_metadata(file)["state"]))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise MinirnnError(f"{file} is not a training state of minirnn's; start again, or copy the file again") from error
        manual_seed(self.seed)
        with device("cpu"):
            task = registry.find(self.model).restore(self.config, self.data, self.folder)
            load_weights(task.model, part(arrays, "model"), file)
        task.model.to(self.device)
        return task, arrays, state

    def save_best(self, model: Module, state: TrainingState) -> None:
        """Write `model.safetensors`: the weights with the best score so far."""
        described = {"model": self.model, "step": str(state.step), "score": repr(state.best), "minirnn": __version__}
        serialization.save(model, self.folder / BEST, metadata=described)

    def save_last(self, arrays: Mapping[str, np.ndarray[Any, Any]], state: TrainingState) -> None:
        """Write `last.safetensors`: the arrays by prefixed name and the state, all that `resume` needs."""
        serialization.save(arrays, self.folder / LAST, metadata={"model": self.model, "state": json.dumps(asdict(state))})

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl`, all of its lines."""
        write_atomically(self.folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def read_metrics(self, up_to: int | None = None) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, those of later steps than `up_to` left out; none if there is no such file."""
        file = self.folder / METRICS
        if not file.is_file():
            return []
        rows = []
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                row = json.loads(line)
                if up_to is None or row["step"] <= up_to:
                    rows.append(row)
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise MinirnnError(f"{file}, line {number}: not a line of metrics ({line[:40]!r})") from error
        return rows


def check_free(folder: Path) -> None:
    """Raise MinirnnError unless the folder is new or empty: a run is never written over another one, nor among other files."""
    if folder.exists() and not folder.is_dir():
        raise MinirnnError(f"{folder} is a file; name a folder with --out")
    if (folder / CONFIG).exists() and not (folder / LAST).exists():
        raise MinirnnError(f"{folder} holds a run that stopped before its first checkpoint: remove it, or name another folder with --out")
    if (folder / CONFIG).exists():
        raise MinirnnError(f"{folder} holds a run already: go on with minirnn train --resume {folder}, or name another folder with --out")
    if folder.is_dir() and any(entry.name != LOCK_NAME for entry in folder.iterdir()):
        raise MinirnnError(f"{folder} is not empty; name a new folder with --out")


def new_folder(name: str, parent: Path = Path("runs")) -> Path:
    """The first of runs/NAME, runs/NAME-2, runs/NAME-3, ... that is not there yet."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def part(arrays: Mapping[str, np.ndarray[Any, Any]], prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix/`, without it."""
    start = prefix + "/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def load_weights(model: Module, arrays: Mapping[str, np.ndarray[Any, Any]], file: Path) -> None:
    """Load weights by name. Raises MinirnnError, with the first names and shapes that differ, for those of another model."""
    expected = {name: array.shape for name, array in model.state_dict().items()}
    found = {name: array.shape for name, array in arrays.items()}
    if expected != found:
        raise MinirnnError(f"{file} belongs to another model: {_differences(expected, found)}")
    model.load_state_dict(dict(arrays))


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    shapes = [f"{name} is {found[name]}, expected {expected[name]}" for name in expected if name in found and found[name] != expected[name]]
    missing = [f"{name} {expected[name]} is missing" for name in expected if name not in found]
    extra = [f"{name} {found[name]} is not in the model" for name in found if name not in expected]
    differences = shapes + missing + extra
    more = len(differences) - _SHOWN
    return "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises MinirnnError where it is missing or damaged."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise MinirnnError(f"{file}: no such file") from None
    except OSError as error:
        raise MinirnnError(f"cannot read {file}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MinirnnError(f"{file} is cut short or damaged: {error}") from error
