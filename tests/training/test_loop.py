"""The training loop: stopping anywhere and going on changes no bit; budgets, schedules, averages; what happens when numbers break."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.errors import MinirnnError
from minirnn.random import manual_seed
from minirnn.training import DataArguments, Metric, Outcome, Run, Trainer, TrainingOptions
from minirnn.training.averaging import EVERY, WeightAverage
from minirnn.training.loop import LOG_EVERY, NonFiniteError
from minirnn.training.schedule import learning_rate

from .tiny import TinyConfig, TinyTask, resume

DATA = DataArguments("sums")
BATCHES = 6  # in an epoch of the tiny task


class Clock:
    """A clock that moves one second each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class InterruptingTask(TinyTask):
    """Ctrl-C comes in the midst of one call of `loss` or of `validate`."""

    during_step: int = -1
    during_validation: int = -1
    validations: int = 0

    def loss(self, batch: Any, step: int) -> Any:
        if step == self.during_step:
            os.kill(os.getpid(), signal.SIGINT)
        return super().loss(batch, step)

    def validate(self) -> dict[str, float]:
        self.validations += 1
        if self.validations - 1 == self.during_validation:
            os.kill(os.getpid(), signal.SIGINT)
        return super().validate()


def make_run(folder: Path, options: TrainingOptions, config: TinyConfig | None = None) -> Run:
    return Run(folder, "tiny", config or TinyConfig(), options, DATA, seed=5)


def train(run: Run, interrupt: Callable[[InterruptingTask], None] = lambda task: None) -> tuple[TinyTask, Outcome]:
    manual_seed(run.seed)
    task = InterruptingTask.build(run.config, run.data, run.seed)
    interrupt(task)
    with run.lock():
        run.write_start(task)
        return task, Trainer(task, run.training, run.seed, run).fit()


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("elapsed", "per_second")} for row in rows]


OPTIONS = [
    TrainingOptions(lr=1e-2, epochs=6, schedule="cosine", warmup=4, average=0.9),
    TrainingOptions(lr=1e-2, epochs=6, schedule="plateau", validate_every=4, optimizer="sgd"),
    TrainingOptions(lr=1e-2, epochs=6, optimizer="adamw", weight_decay=0.1, clip=0.0, patience=2),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.schedule)
@pytest.mark.parametrize(
    "place",
    [{"during_step": 0}, {"during_step": BATCHES + 2}, {"during_step": 2 * BATCHES - 1}, {"during_validation": 1}],
    ids=["first update", "amid an epoch", "end of an epoch", "validation"],
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: TrainingOptions, place: dict[str, int]) -> None:
    straight, expected = train(make_run(tmp_path / "straight", options))
    _, stopped = train(make_run(tmp_path / "parts", options), lambda task: task.__dict__.update(place))
    assert stopped.reason == "interrupted"
    resumed, outcome = resume(tmp_path / "parts")
    assert outcome.reason == expected.reason
    for (name, a), b in zip(straight.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert without_time(outcome.rows) == without_time(expected.rows)
    for file in ("model.safetensors", "last.safetensors"):
        sides = [_arrays(tmp_path / folder / file) for folder in ("straight", "parts")]
        assert sides[0].keys() == sides[1].keys()
        assert all(np.array_equal(sides[0][name], sides[1][name]) for name in sides[0]), file
    assert without_time(Run.open(tmp_path / "parts").read_metrics()) == without_time(expected.rows)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    from minirnn.serialization import load

    return load(path)


def test_one_seed_one_result(tmp_path: Path) -> None:
    first, second = (train(make_run(tmp_path / name, OPTIONS[0]))[1] for name in "ab")
    assert without_time(first.rows) == without_time(second.rows)


def test_it_learns(tmp_path: Path) -> None:
    """The variance of the sum of 10 independent normal numbers is 10: the best constant's squared error."""
    _, outcome = train(make_run(tmp_path / "run", TrainingOptions(lr=2e-2, epochs=40), TinyConfig(hidden=16, dropout=0.0)))
    assert outcome.state.best is not None
    assert outcome.state.best < 2.0


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    _, outcome = train(make_run(tmp_path / "run", TrainingOptions(lr=0.1, epochs=8, average=0.8)))
    scores = [row["valid"]["loss"] for row in outcome.rows if "valid" in row]
    task = Run.open(tmp_path / "run").task()
    assert task.evaluate("valid")["loss"] == min(scores) == outcome.state.best
    assert not task.model.training


def test_patience_ends_training_after_so_many_validations_without_improvement() -> None:
    class Worse(TinyTask):
        count = 0

        def validate(self) -> dict[str, float]:
            self.count += 1
            return {"loss": float(abs(self.count - 3))}  # best at the third

    outcome = Trainer(Worse.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=100, patience=4)).fit()
    assert outcome.reason == "patience"
    assert outcome.state.best_step == 3 * BATCHES
    assert outcome.state.step == 7 * BATCHES


def test_what_counts_as_better() -> None:
    for higher, sign in ((True, 1.0), (False, -1.0)):
        metric = Metric("score", higher)
        assert metric.better(sign, None)
        assert metric.better(2 * sign, sign)
        assert not metric.better(sign, sign)
        assert not metric.better(0.0, sign)
        assert not metric.better(math.nan, None)
        assert not metric.better(math.nan, sign)
        assert metric.better(sign, -sign * math.inf)
        assert metric.better(-sign * math.inf, -sign * math.inf)  # while nothing counts yet, the latest
        assert not metric.better(-sign * math.inf, sign)


def test_of_equal_scores_the_one_with_the_lower_loss_is_kept() -> None:
    class Equal(TinyTask):
        metric = Metric("right", higher_is_better=True)
        losses = iter([3.0, 1.0, 2.0])

        def validate(self) -> dict[str, float]:
            return {"right": 0.0, "loss": next(self.losses)}

    outcome = Trainer(Equal.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=3)).fit()
    assert [row["best"] for row in outcome.rows if "valid" in row] == [True, True, False]
    assert outcome.state.best_step == 2 * BATCHES


def test_the_minutes_are_kept_and_include_the_validations() -> None:
    clock = Clock()
    outcome = Trainer(TinyTask.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=0, minutes=1.0), clock=clock).fit()
    assert outcome.reason == "minutes"
    assert outcome.rows[-1]["step"] == outcome.state.validated == outcome.state.step
    assert 50 < clock.now <= 66  # by the faked seconds


@pytest.mark.parametrize("cost", [(20.0, 20.0, 20.0), (25.0, 22.0, 19.0, 16.0), (10.0, 13.0, 16.0)], ids=["even", "shrinking", "growing"])
def test_the_minutes_are_missed_by_no_more_than_a_validation_s_surprise(cost: tuple[float, ...]) -> None:
    clock = Clock()

    class Slow(TinyTask):
        seconds = iter(cost)

        def validate(self) -> dict[str, float]:
            clock.now += next(self.seconds)
            return super().validate()

    outcome = Trainer(Slow.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=0, minutes=1.0), clock=clock).fit()
    surprise = max(0.0, *(later - before for before, later in itertools.pairwise(cost)))
    assert outcome.reason == "minutes"
    assert outcome.state.elapsed <= 60 + surprise + 6  # the clock moves by a second at each of the few looks at it after the last check


def test_a_validation_that_fails_loses_no_update(tmp_path: Path) -> None:
    class Failing(InterruptingTask):
        def validate(self) -> dict[str, float]:
            raise MinirnnError("no scores")

    run = make_run(tmp_path / "run", TrainingOptions(epochs=2))
    manual_seed(run.seed)
    task = Failing.build(run.config, run.data, run.seed)
    with run.lock(), pytest.raises(MinirnnError, match="no scores"):
        run.write_start(task)
        Trainer(task, run.training, run.seed, run).fit()
    _, _, state = Run.open(tmp_path / "run").resume()
    assert (state.step, state.validated) == (BATCHES, 0)
    _, resumed = resume(tmp_path / "run")
    _, straight = train(make_run(tmp_path / "straight", TrainingOptions(epochs=2)))
    assert without_time(resumed.rows) == without_time(straight.rows)


def test_the_minutes_of_all_parts_count(tmp_path: Path) -> None:
    train(make_run(tmp_path / "run", TrainingOptions(epochs=1)))
    run = Run.open(tmp_path / "run")
    task, arrays, state = run.resume()
    state.elapsed = 59.0
    trainer = Trainer(task, TrainingOptions(epochs=0, minutes=1.0), run.seed, clock=Clock())
    trainer.load(arrays, state, [])
    assert trainer.fit().state.step <= BATCHES + 2


def test_an_epoch_or_a_number_of_updates_between_validations() -> None:
    for every, expected in ((0, [6, 12]), (4, [4, 6, 8, 12])):
        outcome = Trainer(TinyTask.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=2, validate_every=every)).fit()
        assert [row["step"] for row in outcome.rows if "valid" in row] == expected


def test_the_losses_in_the_metrics_are_means_weighted_by_size() -> None:
    losses: list[tuple[float, int]] = []

    class Recording(TinyTask):
        def loss(self, batch: Any, step: int) -> Any:
            loss = super().loss(batch, step)
            losses.append((loss.item(), len(batch)))
            return loss

    task = Recording.build(TinyConfig(batch_size=7), DATA, 0)
    outcome = Trainer(task, TrainingOptions(epochs=1)).fit()
    expected = sum(loss * size for loss, size in losses) / sum(size for _, size in losses)
    assert outcome.rows[0]["loss"] == pytest.approx(expected, rel=1e-12)
    assert LOG_EVERY > BATCHES + 1  # one line for the epoch


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_training_stops_where_numbers_break_and_keeps_the_last_checkpoint(tmp_path: Path, broken: str) -> None:
    run = make_run(tmp_path / "run", TrainingOptions(epochs=4), TinyConfig(poison=8 if broken == "loss" else -1))
    manual_seed(run.seed)
    task = (TinyTask if broken == "loss" else BrokenGradient).build(run.config, run.data, run.seed)
    with run.lock(), pytest.raises(NonFiniteError) as error:
        run.write_start(task)
        Trainer(task, run.training, run.seed, run).fit()
    message = str(error.value)
    assert "update 9 (epoch 2, batch 3)" in message
    assert ("the loss is " if broken == "loss" else "the gradient is not finite") in message
    assert f"the checkpoint of step {BATCHES} is kept in {run.folder}" in message
    assert ("Cause: Mul forward: first NaN or Inf at" if broken == "loss" else "first NaN or Inf at index") in message
    _, _, state = Run.open(tmp_path / "run").resume()
    assert state.step == BATCHES
    assert all(np.isfinite(a).all() for a in Run.open(tmp_path / "run").task().model.state_dict().values())


class HalvingTask(TinyTask):
    """Learns without gradients: every update halves all weights."""

    loss_before = 1.0

    def update(self, batch: Any, step: int) -> float | None:
        for parameter in self.model.parameters():
            parameter.data *= 0.5
        return self.loss_before


def test_a_task_may_learn_by_its_own_update(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TrainingOptions(epochs=1))
    before = run.start().model.state_dict()
    task = HalvingTask(TinyConfig(features=2), DATA, seed=0)
    task.model.load_state_dict(before)
    with run.lock(), run.begun(task):
        outcome = Trainer(task, run.training, run=run).fit()
    assert outcome.state.step == BATCHES
    for name, array in task.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name] * 0.5**BATCHES)
    assert next(row for row in outcome.rows if "loss" in row)["loss"] == 1.0


def test_an_update_that_gives_nan_stops_the_training() -> None:
    task = HalvingTask(TinyConfig(features=2), DATA, seed=0)
    task.loss_before = math.nan
    with pytest.raises(NonFiniteError, match="training stopped at update 1: the loss is nan"):
        Trainer(task, TrainingOptions(epochs=1)).fit()


class BrokenGradient(TinyTask):
    """d sqrt(x) / dx at 0 is infinite, and the loss is fine."""

    def loss(self, batch: Any, step: int) -> Any:
        loss = super().loss(batch, step)
        return loss + ((loss * 0.0).sqrt() if step == 8 else 0.0)


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    class Twice(InterruptingTask):
        def loss(self, batch: Any, step: int) -> Any:
            if step == 1:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(batch, step)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Trainer(Twice.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=3)).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_data_cannot_be_resumed(tmp_path: Path) -> None:
    train(make_run(tmp_path / "run", TrainingOptions(epochs=2)), lambda task: setattr(task, "during_step", 2))
    run = Run.open(tmp_path / "run")
    task, arrays, state = run.resume()
    task.config = dataclasses.replace(task.config, batch_size=16)
    trainer = Trainer(task, run.training, run.seed)
    trainer.load(arrays, state, [])
    with pytest.raises(MinirnnError, match="the data have changed: an epoch has 3 batches and had 6"):
        trainer.fit()


def test_training_without_an_end_or_without_data_is_refused() -> None:
    with pytest.raises(MinirnnError, match="set epochs, minutes or patience"):
        Trainer(TinyTask.build(TinyConfig(), DATA, 0), TrainingOptions(epochs=0))

    class Empty(TinyTask):
        def batches(self, epoch: int, rng: np.random.Generator) -> list[np.ndarray]:
            return []

    with pytest.raises(MinirnnError, match="nothing to train on"):
        Trainer(Empty.build(TinyConfig(), DATA, 0), TrainingOptions()).fit()


def test_schedules() -> None:
    def at(schedule: Any, spent: float, step: int = 100, warmup: int = 0, scale: float = 1.0) -> float:
        return learning_rate(TrainingOptions(lr=2.0, schedule=schedule, warmup=warmup), step, spent, scale)

    assert [at("linear", spent) for spent in (0.0, 0.25, 1.0, 1.5)] == [2.0, 1.5, 0.0, 0.0]
    assert [at("cosine", spent) for spent in (0.0, 0.5, 1.0)] == pytest.approx([2.0, 1.0, 0.0])
    assert at("constant", 0.9) == 2.0
    assert at("plateau", 0.9, scale=0.25) == 0.5
    assert [at("constant", 0.0, step, warmup=4) for step in (0, 1, 3, 4)] == [0.5, 1.0, 2.0, 2.0]


def test_the_average_is_the_weighted_mean_of_the_weights_seen() -> None:
    model = TinyTask.build(TinyConfig(), DATA, 0).model
    average = WeightAverage(model, 0.95)
    p = model.output.weight
    seen = []
    for step in range(1, 4 * EVERY + 1):
        p.data[...] = math.sin(step)
        average.update(step)
        if step % EVERY == 0:
            seen.append(math.sin(step))
    powers = [(0.95**EVERY) ** k for k in reversed(range(len(seen)))]
    expected = sum(w * d for w, d in zip(seen, powers, strict=True)) / sum(powers)
    with average.in_place():
        np.testing.assert_allclose(p.data, expected, rtol=1e-6)
    np.testing.assert_array_equal(p.data, np.float32(math.sin(4 * EVERY)))


def test_before_the_first_look_the_average_is_the_weights_themselves() -> None:
    model = TinyTask.build(TinyConfig(), DATA, 0).model
    average = WeightAverage(model, 0.9)
    model.output.weight.data[...] = 7.0
    with average.in_place():
        assert (model.output.weight.data == 7.0).all()
