"""The training loop: the same for every model, and able to stop after any update and to go on as if nothing had happened."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import numpy as np

from minirnn import optim
from minirnn.autograd import no_grad
from minirnn.device import device, numbers, on_host
from minirnn.diagnostics import AnomalyError, detect_anomaly
from minirnn.errors import MinirnnError
from minirnn.nn import Module
from minirnn.random import generator
from minirnn.tensor import Tensor
from minirnn.training.averaging import WeightAverage
from minirnn.training.checkpoint import Arrays, Run, TrainingState, part
from minirnn.training.chunked import Chunked
from minirnn.training.progress import Progress, Silent
from minirnn.training.schedule import learning_rate
from minirnn.training.task import Task, TrainingOptions

LOG_EVERY = 25  # updates between two lines of metrics
SAVE_SECONDS = 120.0  # between two checkpoints, where validations are farther apart
PLATEAU = 0.5  # by which the plateau schedule multiplies the learning rate

Reason = Literal["epochs", "minutes", "patience", "interrupted"]


class NonFiniteError(MinirnnError):
    """The loss or a gradient became NaN or infinite; the message says where."""


@dataclass(frozen=True)
class Outcome:
    """How training ended: why, where it stands, and the lines of metrics."""

    reason: Reason
    state: TrainingState
    rows: list[dict[str, Any]]


class Trainer:
    """Trains a task.

    Order and everything drawn follow from `seed`, and all state is in `TrainingState`, the model, the optimiser and the average: a run
    that was stopped after any update and resumed ends with the same bits as one that was not. With a limit in minutes and a schedule that
    follows the budget, the learning rate depends on the clock, and so do the bits.

    Args:
        task: the model and its data.
        options: how to train.
        seed: of the order of the examples.
        run: where checkpoints and metrics go, locked by the caller; None keeps nothing.
        progress: who is told how it goes.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        options: TrainingOptions,
        seed: int = 0,
        run: Run | None = None,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not (options.epochs or options.minutes or options.patience):
            raise MinirnnError("training would never end: set epochs, minutes or patience to more than 0")
        self.task, self.options, self.seed, self.run, self.clock = task, options, seed, run, clock
        self.progress = progress or Silent()
        self.optimizer = make_optimizer(options, task.model)
        self.average = WeightAverage(task.model, options.average) if options.average else None
        self.chunked = Chunked(task, options) if options.bptt else None
        self.state = TrainingState()
        self.rows: list[dict[str, Any]] = []
        self.interrupted = False
        self._validating = False
        self._validation_seconds = 0.0
        self._began = self._saved = self._logged = 0.0
        self._saved_step = 0

    def load(self, arrays: Arrays, state: TrainingState, rows: list[dict[str, Any]]) -> None:
        """Stand where another trainer of the same task stood when it saved; the model's weights are loaded already.

        Raises MinirnnError where the state is another run's.
        """
        try:
            self.optimizer.load_state_dict({"arrays": part(arrays, "optimizer"), "scalars": state.optimizer})
            if self.average is not None:
                self.average.load_state_dict(part(arrays, "average"))
            self._set_random(state.random)
            if self.chunked is not None:
                self.chunked.load(part(arrays, "carried"))
        except (ValueError, KeyError) as error:
            raise MinirnnError(f"the training state belongs to a run with other settings: {error}") from error
        rows = [row for row in rows if "valid" not in row or row["step"] <= state.validated]  # the others come again
        self.state, self.rows, self._saved_step = state, rows, state.step

    def fit(self) -> Outcome:
        """Train until the budget is spent, nothing improves any more, or Ctrl-C; the model is left with its last weights.

        Everything is computed where the model's parameters live, and new tensors are made there.

        Raises NonFiniteError at the first loss or gradient that is NaN or infinite. The last checkpoint is then the one before.
        """
        self._began = self.clock() - self.state.elapsed
        self._saved = self._logged = self.clock()
        with device(self.task.device), self._interruptible(), self.progress:
            reason = self._loop()
        return Outcome(reason, self.state, self.rows)

    def _loop(self) -> Reason:
        state, epoch, batches = self.state, -1, []
        while True:
            if epoch != state.epoch:
                epoch, batches = state.epoch, list(self.task.batches(state.epoch, np.random.default_rng([self.seed, state.epoch])))
                self._check_batches(len(batches))
            if self._validation_due(len(batches)) and not self.interrupted:
                self._validate()
                continue
            if self.interrupted:
                self._save()
                return "interrupted"
            if state.batch == len(batches):
                state.epoch, state.batch = state.epoch + 1, 0
            reason = self._ended()
            if reason:
                self._save()
                return reason
            if epoch != state.epoch:
                continue
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is found and named
                self._update(batches[state.batch])
            if self.clock() - self._saved > SAVE_SECONDS:
                self._save()

    def _update(self, batch: Any) -> None:
        """Learn from one batch, or from its next chunk: by the task's own update, or else by a step of the optimiser."""
        state = self.state
        chunk = None if self.chunked is None else self.chunked.next(batch, state)
        size, loss = chunk or (self.task.size(batch), lambda: self.task.loss(batch, state.step))
        self.task.model.train()
        updated = None if chunk else self.task.update(batch, state.step)
        value, norm = self._descend(loss) if updated is None else (updated, 0.0)
        if not math.isfinite(value):
            raise NonFiniteError(f"training stopped at update {state.step + 1}: the loss is {value}{self._kept()}")
        state.step, state.chunk = state.step + 1, state.chunk + 1
        if state.chunk == state.chunks:
            state.batch, state.chunk, state.chunks = state.batch + 1, 0, 1
        if self.chunked is not None:
            self.chunked.advance(state)
        if self.average is not None:
            self.average.update(state.step)
        state.loss, state.norm, state.size = state.loss + value * size, state.norm + norm, state.size + size
        state.updates += 1
        state.elapsed = self.clock() - self._began
        self.progress.update(state, value, norm, size, self._left())
        if state.step % LOG_EVERY == 0:
            self._log()

    def _descend(self, compute: Callable[[], Tensor]) -> tuple[float, float]:
        """A step of the optimiser: the loss before it, and the gradient's norm. No weight has changed yet where it raises."""
        state, before = self.state, self._random()
        loss = compute()
        self.optimizer.lr = learning_rate(self.options, state.step, self._spent(), state.lr_scale)
        value, norm = self._step(loss) if on_host(loss.data) else self._step_on_device(loss)
        if not math.isfinite(value):
            raise NonFiniteError(self._explain(compute, before, f"the loss is {value}"))
        if not math.isfinite(norm):
            raise NonFiniteError(self._explain(compute, before, "the gradient is not finite"))
        self.optimizer.zero_grad()
        return value, norm

    def _step(self, loss: Tensor) -> tuple[float, float]:
        """The loss and the norm as numbers; a step has been taken if both are finite."""
        value = loss.item()
        if not math.isfinite(value):
            return value, math.nan
        loss.backward()
        try:
            return value, float(self.optimizer.step(max_norm=self._largest_norm()) or 0.0)
        except FloatingPointError:
            return value, math.nan

    def _step_on_device(self, loss: Tensor) -> tuple[float, float]:
        """The same where work is queued: the host waits once, at the end, for both numbers together.

        Until then only the device knows whether they are finite. The optimiser leaves everything as it is where the norm is not; a loss
        that is not makes the gradient NaN by its seed, 1 + 0 loss.
        """
        loss.backward(loss.detach() * 0 + 1)
        norm = self.optimizer.step(max_norm=self._largest_norm())
        value, length = numbers(loss.data, norm.data if isinstance(norm, Tensor) else np.array(norm or 0.0))
        return value, length

    def _largest_norm(self) -> float:
        return self.options.clip or math.inf

    def _validate(self) -> None:
        state, began = self.state, self.clock()
        if state.updates:
            self._log()
        if state.step != self._saved_step:
            self._save()  # so that a validation that fails loses nothing
        self.progress.validating(state)
        try:
            scores = self._scores()
        except KeyboardInterrupt:
            if not self.interrupted:
                raise
            return  # the validation is the first thing that a resumed run does
        state.validated = state.step
        score, loss = scores[self.task.metric.name], scores.get("loss", 0.0)
        better = self.task.metric.better(score, state.best) or (score == state.best and loss < state.best_loss)
        if better:
            state.best, state.best_loss, state.best_step, state.stale = score, loss, state.step, 0
            self._save_best()
        else:
            state.stale += 1
            state.lr_scale *= PLATEAU
        self._validation_seconds = self.clock() - began
        state.elapsed = self.clock() - self._began
        self.rows.append({**self._place(), "valid": scores, "best": better})
        self.progress.validated(state, scores, better)
        self._logged = self.clock()
        self._save()

    def _scores(self) -> dict[str, float]:
        with self._evaluating():
            self._validating, self.task.updates = True, self.state.step
            try:
                return self.task.validate()
            finally:
                self._validating = False

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The weights that are judged and kept, in evaluation mode and without gradients."""
        self.task.model.eval()
        try:
            with no_grad():
                if self.average is None:
                    yield
                else:
                    with self.average.in_place():
                        yield
        finally:
            self.task.model.train()

    def _validation_due(self, batches: int) -> bool:
        state = self.state
        if state.validated == state.step:
            return False
        every = self.options.validate_every
        return state.batch == batches or (every > 0 and state.step % every == 0) or self._out_of_time()

    def _ended(self) -> Reason | None:
        options, state = self.options, self.state
        if options.patience and state.stale >= options.patience:
            return "patience"
        if options.epochs and state.epoch >= options.epochs:
            return "epochs"
        return "minutes" if self._out_of_time() else None

    def _out_of_time(self) -> bool:
        """Whether the minutes are used up, but for one more validation like the last: the one that is due, or that an update asks for."""
        if not self.options.minutes or not self.state.step:
            return False
        return self.state.elapsed + self._validation_seconds >= 60 * self.options.minutes

    def _spent(self) -> float:
        """The share of the budget that is used, 0 to 1: of the epochs or of the minutes, whichever is larger."""
        options, state = self.options, self.state
        epochs = state.passes / options.epochs if options.epochs else 0.0
        return min(1.0, max(epochs, state.elapsed / (60 * options.minutes) if options.minutes else 0.0))

    def _left(self) -> float | None:
        """Seconds to go, if training goes on as it went; None while that cannot be said."""
        spent = self._spent()
        if self.options.minutes and self.state.elapsed / (60 * self.options.minutes) >= spent:
            return max(0.0, 60 * self.options.minutes - self.state.elapsed)
        return self.state.elapsed * (1 - spent) / spent if spent else None

    def _place(self) -> dict[str, Any]:
        state = self.state
        return {"step": state.step, "epoch": round(state.passes, 4), "elapsed": round(state.elapsed, 3)}

    def _log(self) -> None:
        """A line of metrics for the updates since the last one."""
        state, now = self.state, self.clock()
        self.rows.append(
            {
                **self._place(),
                "lr": self.optimizer.lr,
                "loss": state.loss / max(1, state.size),
                "norm": state.norm / state.updates,
                "per_second": round(state.size / max(1e-9, now - self._logged), 1),
            }
        )
        state.loss, state.norm, state.size, state.updates = 0.0, 0.0, 0, 0
        self._logged = now

    def _save(self) -> None:
        if self.run is None:
            return
        optimizer = self.optimizer.state_dict()
        self.state.random, self.state.optimizer = self._random(), optimizer["scalars"]
        groups: dict[str, Mapping[str, Any]] = {"model": self.task.model.state_dict(), "optimizer": optimizer["arrays"]}
        if self.average is not None:
            groups["average"] = self.average.state_dict()
        if self.chunked is not None:
            groups["carried"] = self.chunked.arrays()
        arrays = {f"{group}/{name}": array for group, members in groups.items() for name, array in members.items()}
        self.run.write_metrics(self.rows)
        self.run.save_last(arrays, self.state)
        self._saved, self._saved_step = self.clock(), self.state.step

    def _save_best(self) -> None:
        if self.run is not None:
            with self._evaluating():
                self.run.save_best(self.task.model, self.state)

    def _random(self) -> dict[str, Any]:
        return {"model": self.task.model.rng_state(), "default": generator(None).bit_generator.state}

    def _set_random(self, state: Mapping[str, Any]) -> None:
        generator(None).bit_generator.state = state["default"]
        self.task.model.set_rng_state(state["model"])

    def _check_batches(self, count: int) -> None:
        if not count:
            raise MinirnnError("there is nothing to train on: the data give no batches")
        if self.state.batches and self.state.batches != count and (self.state.batch or self.state.chunk):
            raise MinirnnError(
                f"the data have changed: an epoch has {count} batches and had {self.state.batches} when training stopped; train again"
            )
        self.state.batches = count

    def _explain(self, compute: Callable[[], Tensor], random: Mapping[str, Any], fault: str) -> str:
        """Compute the loss again, with the same draws, and watch for the operation that made the first NaN or Inf."""
        bad = [name for name, p in self.task.model.named_parameters() if not np.isfinite(p.numpy()).all()]
        self._set_random(random)
        self.task.model.zero_grad()
        source = f"the weights {', '.join(bad[:3])} hold NaN or Inf already" if bad else self._first_anomaly(compute)
        return (
            f"training stopped at update {self.state.step + 1} (epoch {self.state.epoch + 1}, batch {self.state.batch + 1}): {fault}. "
            f"Cause: {source}{self._kept()}. Try a smaller lr or clip"
        )

    def _kept(self) -> str:
        return f"; the checkpoint of step {self._saved_step} is kept in {self.run.folder}" if self.run and self._saved_step else ""

    def _first_anomaly(self, compute: Callable[[], Tensor]) -> str:
        try:
            with detect_anomaly():
                compute().backward()
        except AnomalyError as error:
            return str(error)
        return "no single operation; the norm of finite gradients overflows"

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C lets the update finish (and breaks off a validation); the second one is an ordinary KeyboardInterrupt."""

        def handle(number: int, frame: FrameType | None) -> None:
            again, self.interrupted = self.interrupted, True
            if again or self._validating:
                raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def make_optimizer(options: TrainingOptions, model: Module) -> optim.Optimizer:
    """The optimiser that the options name, for all parameters of a model."""
    if options.optimizer == "sgd":
        return optim.SGD(model.named_parameters(), lr=options.lr, weight_decay=options.weight_decay, momentum=0.9)
    kind = optim.AdamW if options.optimizer == "adamw" else optim.Adam
    return kind(model.named_parameters(), lr=options.lr, weight_decay=options.weight_decay)
