"""Training on the emulated GPU: one wait per update, the CPU's weights and scores, and checkpoints that belong to no device.

Tolerances are those of tests/models/test_device.py: CHAIN TERMS eps of a gradient of norm 1, times what SGD with momentum makes of it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.data.kinds import CaptionedPictures
from minirnn.data.sources import series as csv
from minirnn.device import device
from minirnn.kernels.availability import missing
from minirnn.random import manual_seed
from minirnn.training import DataArguments, Run, Task, Trainer, TrainingOptions
from minirnn.training.averaging import EVERY
from minirnn.training.loop import NonFiniteError
from minirnn.training.tasks import captioner
from minirnn.training.tasks.captioner import CaptionerTask, CaptioningConfig
from minirnn.training.tasks.kalman import KalmanConfig, KalmanTask
from minirnn.training.tasks.ssm import SSMTask, SSMTaskConfig
from minirnn.training.tasks.translation import TranslationConfig, TranslationTask
from minirnn.training.tasks.vae import VAETask, VAETaskConfig

from .test_captioner import Squares, slots
from .tiny import TinyConfig, TinyTask

pytestmark = pytest.mark.skipif(missing("emulated") is not None, reason=f"the emulated device: {missing('emulated')}")

CHAIN, TERMS, LR = 40, 64, 0.1
OPTIONS = TrainingOptions(optimizer="sgd", lr=LR, clip=1.0, epochs=1)
WORDS = {"one": "un", "two": "deux", "three": "trois"}


def bound(updates: int) -> float:
    """Of what `updates` steps of SGD with momentum 0.9 add to a weight."""
    growth = sum((1 - 0.9**k) / 0.1 for k in range(1, updates + 1))
    return float(LR * growth * CHAIN * TERMS * np.finfo(np.float32).eps)


class Counted(Trainer):
    """Counts how often each update waits for the device."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waits: list[int] = []

    def _update(self, batch: Any) -> None:
        stand_in = importlib.import_module("minirnn.kernels.emulator.stand_in")
        with stand_in.counting() as counts:
            super()._update(batch)
        self.waits.append(counts.synchronisations)


def written(path: Path, lines: list[str]) -> DataArguments:
    path.write_text("\n".join(lines), encoding="utf-8")
    return DataArguments(str(path))


def translation(folder: Path) -> Task[Any, Any]:
    pytest.importorskip("sacrebleu", reason="translations are scored with sacrebleu")
    pairs = [f"{a} {b}\t{WORDS[a]} {WORDS[b]}" for a in WORDS for b in WORDS]
    sizes = {"embedding": 4, "encoder_hidden": 4, "decoder_hidden": 5, "batch_size": 4, "min_count": 1, "dropout": 0.1}
    return TranslationTask.build(TranslationConfig(**sizes), written(folder / "pairs.tsv", pairs), 0)


def sentences(folder: Path, latent: int = 2) -> Task[Any, Any]:
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS]
    sizes = {"embedding": 4, "encoder_hidden": 4, "decoder_hidden": 5, "batch_size": 8, "min_count": 1, "annealing_steps": 1}
    return VAETask.build(VAETaskConfig(**sizes, latent=latent), written(folder / "texts.txt", texts), 0)


def pictures(folder: Path) -> Task[Any, Any]:
    pytest.importorskip("sacrebleu", reason="captions are scored with sacrebleu")
    sizes = {"channels": 4, "grid_features": 4, "embedding": 4, "hidden": 5, "batch_size": 4}
    return CaptionerTask.build(CaptioningConfig(**sizes), DataArguments("squares"), 0)


def waves(folder: Path) -> DataArguments:
    path, rng = folder / "waves.csv", np.random.default_rng(0)
    csv.write(path, ("a", "b"), list(np.sin(np.arange(8)[:, None] + rng.uniform(0, 6, (20, 1, 2))) + rng.normal(0, 0.1, (20, 8, 2))))
    return DataArguments(str(path))


def frames(folder: Path, **options: Any) -> Task[Any, Any]:
    sizes = {"latent": 2, "hidden": 4, "encoder_hidden": 4, "combiner": 4, "emission_hidden": 4, "batch_size": 4}
    return SSMTask.build(SSMTaskConfig(**sizes, **options), waves(folder), 0)


def levels(folder: Path, **options: Any) -> Task[Any, Any]:
    return KalmanTask.build(KalmanConfig(**options), waves(folder), 0)


# what builds it, and how often an update waits: for loss and norm, or for the moments that EM's maximisation needs on the host
TASKS: dict[str, tuple[Callable[[Path], Task[Any, Any]], int]] = {
    "seq2seq": (translation, 1),
    "captioner": (pictures, 1),
    "vae": (sentences, 1),
    "vae, language model": (lambda folder: sentences(folder, latent=0), 1),
    "ssm": (lambda folder: frames(folder, gaps=0.2), 1),
    "ssm, srnn": (lambda folder: frames(folder, model="srnn"), 1),
    "ssm, lstm": (lambda folder: frames(folder, model="lstm"), 1),
    "kalman, gradient": (lambda folder: levels(folder, method="gradient"), 1),
    "kalman, em": (levels, 14),  # the likelihood, mean, covariance and lag-one covariance of the states, and the 10 matrices
}


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the data set "squares" is."""
    known = captioner.minirnn_data.source
    found = CaptionedPictures("squares", Squares(0, 8), Squares(1, 3), Squares(2, 3), "drawn here", slots=slots)

    def source(name: str, *rest: Any, **kind: Any) -> Any:
        return found if name == "squares" else known(name, *rest, **kind)

    monkeypatch.setattr(captioner.minirnn_data, "source", source)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns_what_it_learns_on_the_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, waits = TASKS[name]
    trained = []
    for where in ("cpu", "emulated"):
        task = build(tmp_path)
        task.model.to(where)
        batches = task.batches
        monkeypatch.setattr(task, "batches", lambda epoch, rng, batches=batches: batches(epoch, rng)[:2])
        trainer = Counted(task, OPTIONS)
        outcome = trainer.fit()
        trained.append((trainer, outcome.rows[-1]["valid"], task.model.state_dict()))
    (_, here, learnt_here), (trainer, there, learnt_there) = trained
    assert trainer.waits == [waits] * 2
    for key, expected in learnt_here.items():
        np.testing.assert_allclose(learnt_there[key], expected, rtol=CHAIN * TERMS * 2.0**-23, atol=bound(2), err_msg=key)
    assert here.keys() == there.keys()
    apart = bound(2) * math.sqrt(task.model.num_parameters())  # as far as the weights may be, and a score of slope 1
    for score, value in here.items():
        assert there[score] == pytest.approx(value, rel=apart, abs=apart, nan_ok=True), score


def tiny(where: str, **config: Any) -> TinyTask:
    manual_seed(0)  # which the task's data draw from
    task = TinyTask.build(TinyConfig(**config), DataArguments("sums"), 0)
    task.model.to(where)
    return task


@pytest.mark.parametrize("fault", ["the loss is inf", "the gradient is not finite"])
def test_what_is_not_finite_changes_nothing(fault: str) -> None:
    """Although the host knows it only after the update was queued."""
    task = tiny("emulated", poison=2 if "loss" in fault else -1)
    trainer = Trainer(task, replace(OPTIONS, optimizer="adam"))
    before: list[dict[str, Any]] = []
    loss = task.loss

    def watched(batch: Any, step: int) -> Any:
        if len(before) < 3:
            before.append(task.model.state_dict())
        if step == 2 and "gradient" in fault:
            task.model.output.weight.register_hook(lambda g: g * math.nan)
        return loss(batch, step)

    task.loss = watched  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=f"training stopped at update 3 .*: {fault}. Cause: "):
        trainer.fit()
    after = task.model.state_dict()
    assert any((before[1][name] != array).any() for name, array in after.items())
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[2][name], err_msg=name)


def test_the_average_of_the_weights() -> None:
    found = []
    for where in ("cpu", "emulated"):
        trainer = Trainer(tiny(where), replace(OPTIONS, average=0.9, epochs=2))
        trainer.fit()
        average = trainer.average
        assert average is not None
        assert average.looks == 12 // EVERY
        with average.in_place():
            found.append(trainer.task.model.state_dict())
        assert not all(np.array_equal(found[-1][name], array) for name, array in trainer.task.model.state_dict().items())
        average.load_state_dict(average.state_dict())
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=0, atol=bound(12), err_msg=name)


def test_a_run_goes_on_on_another_device(tmp_path: Path) -> None:
    """An epoch emulated and one on the CPU: the weights of two on the CPU; momentum, order and dropout go on as well."""

    def run(folder: str, where: str) -> Run:
        return Run(tmp_path / folder, "tiny", TinyConfig(), replace(OPTIONS, epochs=2), DataArguments("sums"), seed=0, device=where)

    whole = run("whole", "cpu").start()
    Trainer(whole, replace(OPTIONS, epochs=2)).fit()

    first = run("parts", "emulated")
    first.folder.mkdir()
    task = first.start()
    assert task.device == "emulated"
    first.write_start(task)
    Trainer(task, OPTIONS, 0, first).fit()
    opened = Run.open(first.folder)
    assert opened.device == "emulated"
    task, arrays, state = replace(opened, device="cpu").resume()
    assert task.device == "cpu"
    rest = Trainer(task, replace(OPTIONS, epochs=2), 0, first)
    rest.load(arrays, state, first.read_metrics(state.step))
    rest.fit()
    for name, expected in whole.model.state_dict().items():
        np.testing.assert_allclose(task.model.state_dict()[name], expected, rtol=0, atol=bound(12), err_msg=name)
    assert opened.task("emulated").device == "emulated"
    scores = []
    for where in ("cpu", "emulated"):
        with device(where):
            scores.append(opened.task(where).evaluate("test")["loss"])
    assert scores[1] == pytest.approx(scores[0], rel=CHAIN * TERMS * 2.0**-23)
