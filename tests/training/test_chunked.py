"""Training by truncated BPTT: against a loop by hand, stopped and resumed in the middle of a sequence, and where it cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn import Tensor, ops
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.kernels.availability import missing
from minirnn.nn.utils import clip_grad_norm_
from minirnn.training import DataArguments, Run, Task, Trainer, TrainingOptions
from minirnn.training.loop import NonFiniteError, make_optimizer
from minirnn.training.progress import Silent
from minirnn.training.tasks.ssm import SSMTask, SSMTaskConfig
from minirnn.training.tasks.vae import VAETask, VAETaskConfig

from .tiny import TinyConfig, TinyTask, resume

T = 23
LSTM = SSMTaskConfig(model="lstm", hidden=6, layers=2, batch_size=4, crop=0, dropout=0.2)
OPTIONS = TrainingOptions(lr=1e-2, epochs=2, warmup=3, clip=0.5, schedule="linear", average=0.9, bptt="5,8")


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> DataArguments:
    rng = np.random.default_rng(0)
    t = np.arange(T) + rng.uniform(0, 9, (10, 1))
    x = np.stack([5 + np.sin(2 * np.pi * t / 9), 0.1 * np.cos(2 * np.pi * t / 9)], axis=-1)
    path = tmp_path_factory.mktemp("data") / "waves.csv"
    csv.write(path, ("a", "b"), list(x + rng.normal(0, 0.02, x.shape)))
    return DataArguments(str(path))


class Stop(Silent):
    """Ctrl-C after some update."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.trainer: Trainer | None = None

    def update(self, state: Any, loss: float, norm: float, size: int, left: float | None) -> None:
        if state.step == self.after:
            assert self.trainer is not None
            self.trainer.interrupted = True


def start(folder: Path, data: DataArguments, options: TrainingOptions, stop: Stop | None = None, device: str = "cpu") -> SSMTask:
    run = Run(folder, "ssm", LSTM, options, data, seed=3, device=device)
    task = run.start()
    with run.lock():
        run.write_start(task)
        trainer = Trainer(task, options, run.seed, run, stop)
        if stop is not None:
            stop.trainer = trainer
        trainer.fit()
    return task


def same_bits(a: Task[Any, Any], b: Task[Any, Any]) -> bool:
    return all(np.array_equal(x, b.model.state_dict()[name]) for name, x in a.model.state_dict().items())


def test_a_run_stopped_within_a_sequence_goes_on_with_the_same_bits(waves: DataArguments, tmp_path: Path) -> None:
    """5 chunks a sequence: stopped after the first, in the middle, before the last, at the end of a batch."""
    whole = start(tmp_path / "whole", waves, OPTIONS)
    rows = [{**row, "elapsed": 0, "per_second": 0} for row in Run.open(tmp_path / "whole").read_metrics()]
    assert rows[-1]["epoch"] == 2
    for after in (1, 3, 4, 5, 7, 12):
        folder = tmp_path / str(after)
        start(folder, waves, OPTIONS, Stop(after))
        _, arrays, state = Run.open(folder).resume()
        assert (state.step, state.chunk) == (after, after % 5)
        assert ("carried/0" in arrays) == (after % 5 > 0)
        resumed, _ = resume(folder)
        assert same_bits(resumed, whole), after
        assert [{**row, "elapsed": 0, "per_second": 0} for row in Run.open(folder).read_metrics()] == rows


def test_chunks_as_long_as_the_sequences_are_the_ordinary_training(waves: DataArguments, tmp_path: Path) -> None:
    ordinary = start(tmp_path / "0", waves, dataclasses.replace(OPTIONS, bptt=""))
    for k, bptt in enumerate(("23", "23,40", "100,100"), 1):
        assert same_bits(start(tmp_path / str(k), waves, dataclasses.replace(OPTIONS, bptt=bptt)), ordinary)
    assert not same_bits(start(tmp_path / "9", waves, OPTIONS), ordinary)


@pytest.mark.parametrize(("k1", "k2"), [(6, 6), (6, 10), (4, 13)])
def test_it_is_the_loop_that_one_would_write(waves: DataArguments, k1: int, k2: int) -> None:
    """In float64, without dropout: every update of two epochs, by hand on dense arrays."""
    options = TrainingOptions(lr=1e-2, epochs=2, clip=0.5, optimizer="adam", bptt=f"{k1},{k2}")
    config = dataclasses.replace(LSTM, dropout=0.0)
    mine, theirs = SSMTask.build(config, waves, 1), SSMTask.build(config, waves, 1)
    for task in (mine, theirs):
        task.model.to("float64")
    Trainer(theirs, options, seed=7).fit()

    optimizer, model = make_optimizer(options, mine.model), mine.model
    for epoch in range(2):
        for batch in mine.batches(epoch, np.random.default_rng([7, epoch])):
            x = np.stack(mine.shown(batch), axis=1)  # (T, N, D)
            before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
            states = {0: None}  # before each step, as last computed
            for t in range(0, T, k1):
                begin, end = max(0, t - (k2 - k1)), min(t + k1, T)
                state, outputs = states[begin], []
                for s in range(begin, end):
                    h, state = model.lstm(Tensor(before[s : s + 1]), state)
                    states[s + 1] = tuple(part.detach() for part in state)
                    outputs.append(h[0])
                rows = ops.concatenate(outputs[t - begin :])
                loss = -model.emission.log_prob(rows, x[t:end].reshape(-1, 2), None).mean()
                optimizer.zero_grad()
                loss.backward()
                clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
    for name, array in mine.model.state_dict().items():
        np.testing.assert_allclose(theirs.model.state_dict()[name], array, rtol=1e-8, atol=1e-10, err_msg=name)


def test_updates_are_counted_and_the_learning_rate_goes_down_within_a_batch(waves: DataArguments) -> None:
    task = SSMTask.build(LSTM, waves, 1)
    seen: list[tuple[int, int, float]] = []

    class Look(Silent):
        def update(self, state: Any, loss: float, norm: float, size: int, left: float | None) -> None:
            seen.append((state.step, size, trainer.optimizer.lr))

    trainer = Trainer(task, dataclasses.replace(OPTIONS, warmup=0, epochs=1), 0, progress=Look())
    trainer.fit()
    series = len(task.series.train)
    batches = -(-series // 4)
    assert len(seen) == 5 * batches
    assert sum(size for _, size, _ in seen) == series * T
    rates = [rate for *_, rate in seen]
    np.testing.assert_allclose(rates, 1e-2 * (1 - np.arange(len(rates)) / len(rates)), rtol=1e-12)


def test_a_loss_that_breaks_is_explained(waves: DataArguments) -> None:
    task = SSMTask.build(LSTM, waves, 1)
    next(task.model.parameters()).data[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"weights lstm\.weight_ih_l0 hold NaN"):
        Trainer(task, OPTIONS).fit()


@pytest.mark.skipif(missing("emulated") is not None, reason=f"the emulated device: {missing('emulated')}")
def test_on_a_device(waves: DataArguments, tmp_path: Path) -> None:
    """The state stays there from chunk to chunk: the CPU's weights but for rounding, and stopped and resumed the same bits."""
    options = dataclasses.replace(OPTIONS, epochs=1, optimizer="sgd", bptt="8,11", average=0.0)
    there, here = (start(tmp_path / device, waves, options, device=device) for device in ("emulated", "cpu"))
    for name, array in here.model.state_dict().items():
        np.testing.assert_allclose(there.model.state_dict()[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
    start(tmp_path / "stopped", waves, options, Stop(2), device="emulated")
    assert same_bits(resume(tmp_path / "stopped")[0], there)


def test_a_language_model_reads_ragged_sentences_in_chunks(tmp_path: Path) -> None:
    """It learns, its loss is in nats per sentence as ever, and it goes on from within a batch with the same bits. With a z it refuses."""
    file = tmp_path / "colours.txt"
    lines = [f"{a} {'very ' * n}{b}" for a in ("red", "blue") for b in ("sea", "sky") for n in range(12)]
    file.write_text("\n".join(lines), encoding="utf-8")
    config = VAETaskConfig(latent=0, embedding=8, decoder_hidden=16, batch_size=8, min_count=1, dropout=0.1, word_dropout=0.1)
    run = Run(tmp_path / "run", "vae", config, TrainingOptions(lr=2e-2, epochs=8, bptt="4,6"), DataArguments(str(file)), seed=1)
    task = run.start()
    outcome = Trainer(task, run.training, run.seed).fit()
    losses = [row["loss"] for row in outcome.rows if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    valid = [row["valid"]["loss"] for row in outcome.rows if "valid" in row]
    assert 0.3 < losses[-1] / valid[-1] < 3
    stop, stopped = Stop(4), run.start()
    with run.lock():
        run.write_start(stopped)
        stop.trainer = Trainer(stopped, run.training, run.seed, run, stop)
        stop.trainer.fit()
    assert Run.open(run.folder).resume()[2].chunk > 0
    assert same_bits(resume(run.folder)[0], task)
    with pytest.raises(MinirnnError, match="vae with latent=2 has an encoder that reads whole sentences and cannot be trained in chunks"):
        Trainer(VAETask.build(dataclasses.replace(config, latent=2), run.data, 0), run.training)


def test_models_that_read_whole_sequences_say_so(waves: DataArguments) -> None:
    can = "cannot be trained in chunks; what can: ssm with --set model=lstm, vae with --set latent=0, and seq2seq, whose decoder does"
    ssm = SSMTask.build(dataclasses.replace(LSTM, model="ssm", latent=2), waves, 0)
    with pytest.raises(MinirnnError, match=f"bptt=5,8: ssm with model=ssm draws latent states over whole sequences and {can}"):
        Trainer(ssm, OPTIONS)
    tiny = TinyTask.build(TinyConfig(), DataArguments("sums"), 0)
    with pytest.raises(MinirnnError, match=f"bptt=5,8: tiny does not read its sequences step by step and {can}"):
        Trainer(tiny, OPTIONS)


@pytest.mark.parametrize("text", ["5,3", "0", "a,b", "1,2,3", "5,", "-1,2", ",", "1.5", "²"])
def test_steps_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="bptt must be two numbers of steps K1,K2 with 1 <= K1 <= K2, as in 20,40, or one for both; got"):
        TrainingOptions(bptt=text)


def test_steps_that_are_some() -> None:
    assert TrainingOptions().chunk_steps is None
    assert TrainingOptions(bptt="20").chunk_steps == (20, 20)
    assert TrainingOptions(bptt="20, 40").chunk_steps == (20, 40)


def test_the_state_moves_with_a_run(waves: DataArguments, tmp_path: Path) -> None:
    """It is NumPy arrays in the checkpoint: h and c of every layer, for the sequences of the batch."""
    start(tmp_path / "run", waves, OPTIONS, Stop(2))
    _, arrays, _ = Run.open(tmp_path / "run").resume()
    assert arrays["carried/0"].shape == arrays["carried/1"].shape == (2, 4, 6)
    assert not np.array_equal(arrays["carried/0"], arrays["carried/1"])
