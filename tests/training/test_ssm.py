"""The task of the state-space models: series in, bounds out in the data's own units, and what may be asked of a trained model."""

from __future__ import annotations

import dataclasses
import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.data import music
from minirnn.data.kinds import Series
from minirnn.data.scaling import Scaling
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.training import DataArguments, Run, Trainer, TrainingOptions, series_baselines, series_pieces
from minirnn.training.tasks.ssm import SSMTask, SSMTaskConfig, exact

TINY = SSMTaskConfig(latent=3, hidden=12, encoder_hidden=12, combiner=12, emission_hidden=12, batch_size=8, annealing=60, beta=0.05)
OPTIONS = TrainingOptions(lr=1e-2, epochs=20)


def swings(count: int, frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Sines of one frequency and any phase, seen twice through noise, in units of their own."""
    t = np.arange(frames) + rng.uniform(0, 12, (count, 1))
    x = np.stack([1000 + 300 * np.sin(2 * np.pi * t / 12), -0.02 + 0.01 * np.cos(2 * np.pi * t / 12)], axis=-1)
    return list(x + rng.normal(0, (30, 0.001), x.shape))


def songs(count: int, frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Two notes an octave apart that go up by a tone after every second beat, from anywhere."""
    rolls = []
    for start in rng.integers(20, 40, count):
        roll = np.zeros((frames, 88))
        for t in range(frames):
            roll[t, [start + t // 2 * 2 % 24, start + t // 2 * 2 % 24 + 12]] = 1
        rolls.append(roll)
    return rolls


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> DataArguments:
    path = tmp_path_factory.mktemp("data") / "swings.csv"
    csv.write(path, ("high", "low"), swings(60, 30, np.random.default_rng(0)))
    return DataArguments(str(path))


@pytest.fixture(scope="module")
def trained(arguments: DataArguments) -> SSMTask:
    task = SSMTask.build(dataclasses.replace(TINY, gaps=0.1), arguments, seed=0)
    Trainer(task, dataclasses.replace(OPTIONS, epochs=40)).fit()
    task.model.eval()
    return task


@pytest.fixture(scope="module")
def musician() -> SSMTask:
    task = music_task(TINY)
    Trainer(task, OPTIONS).fit()
    task.model.eval()
    return task


def music_task(config: SSMTaskConfig) -> SSMTask:
    rng = np.random.default_rng(0)
    train, valid, test = songs(40, 16, rng), songs(5, 16, rng), songs(5, 16, rng)
    data = Series("songs", train, valid, test, "binary", music.key_names(), "made here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minirnn.data.source", lambda *_, **__: data)
        return SSMTask.build(config, DataArguments("songs"), seed=0)


def saved(task: SSMTask, folder: Path) -> Path:
    """The run of a task that was trained without one."""
    run = Run(folder, "ssm", task.config, OPTIONS, task.data, seed=0)
    folder.mkdir()
    run.write_start(task)
    run.save_best(task.model, Trainer(task, OPTIONS).state)
    return folder


def test_it_beats_what_knows_one_frame_of_the_past(trained: SSMTask) -> None:
    scores = trained.evaluate("test", samples=8)
    series, best = trained.series.test, max(scores["baselines"].values())
    baseline = series_baselines.fit(trained.series.train, "real")["AR(1)"]
    spread = np.std([baseline(x) / len(x) for x in series]) / math.sqrt(len(series))
    assert scores["bound"] > best + 10 * spread
    assert scores["bound"] == pytest.approx(scores["reconstruction"] - scores["kl"])
    assert scores["kl"] > 0.1
    assert (scores["series"], scores["frames"], scores["samples"]) == (len(series), 30 * len(series), 8)
    assert trained.evaluate("test", samples=8) == scores


def test_bounds_are_in_the_units_of_the_data(trained: SSMTask) -> None:
    """In units a thousand times smaller, each of the two numbers of a frame has a density a thousand times smaller."""
    mine = trained.validate()["bound"]
    assert mine == -trained.validate()["loss"]
    scaling = trained.form.scaling
    form = dataclasses.replace(trained.form, scaling=Scaling(scaling.mean * 1000, scaling.std * 1000))
    other = SSMTask(trained.config, trained.data, form, 0)
    other.model.load_state_dict(trained.model.state_dict())
    other.series = dataclasses.replace(trained.series, valid=[1000 * x for x in trained.series.valid])
    assert other.validate()["bound"] == pytest.approx(mine - 2 * math.log(1000), abs=1e-5)


def test_the_loss_of_the_training_is_minus_the_bound(trained: SSMTask) -> None:
    """Of an LSTM without latent states, where the likelihood is exact, whatever the batches are."""
    task = SSMTask.build(dataclasses.replace(TINY, model="lstm"), trained.data, seed=0)
    task.model.eval()
    batches = task.batches(0, np.random.default_rng(0))
    loss = sum(task.loss(batch, 0).item() * task.size(batch) for batch in batches) / sum(map(task.size, batches))
    assert -loss == pytest.approx(task.evaluate("train")["log_likelihood"], abs=1e-4)
    assert "kl" not in task.evaluate("test")


@pytest.mark.parametrize("model", ["srnn", "lstm"])
def test_the_siblings_learn_too(model: Any, arguments: DataArguments) -> None:
    task = SSMTask.build(dataclasses.replace(TINY, model=model), arguments, seed=0)
    Trainer(task, OPTIONS).fit()
    scores = task.evaluate("test", samples=4)
    found = scores["log_likelihood"] if model == "lstm" else scores["bound"]
    assert found > max(scores["baselines"].values()) + 0.3


def test_the_exact_likelihood_is_that_of_the_joint_gaussian() -> None:
    from minirnn.data.sources import lgssm

    data = lgssm.load()
    truth = data.truth
    assert truth is not None
    A, C, D, P0 = (truth[name] for name in ("A", "C", "D", "P0"))
    T = 4
    cov = np.zeros((2 * T, 2 * T))
    for s in range(T):  # stationary: Cov[z_t, z_s] = A^(t - s) P0
        for t in range(s, T):
            cov[2 * t : 2 * t + 2, 2 * s : 2 * s + 2] = np.linalg.matrix_power(A, t - s) @ P0
            cov[2 * s : 2 * s + 2, 2 * t : 2 * t + 2] = cov[2 * t : 2 * t + 2, 2 * s : 2 * s + 2].T
    seen = np.kron(np.eye(T), C) @ cov @ np.kron(np.eye(T), C).T + np.kron(np.eye(T), D @ D.T)
    series = [x[:T] for x in data.test[:3]]
    expected = [-0.5 * (x.ravel() @ np.linalg.solve(seen, x.ravel()) + np.linalg.slogdet(2 * np.pi * seen)[1]) for x in series]
    assert exact(truth, series) == pytest.approx(sum(expected) / (3 * T), rel=1e-9)


def test_the_gap_to_the_exact_likelihood_is_reported() -> None:
    task = SSMTask.build(TINY, DataArguments("lgssm"), seed=0)
    task.series = dataclasses.replace(task.series, train=task.series.train[:20], test=task.series.test[:20])
    scores = task.evaluate("test", samples=2)
    assert scores["gap"] == pytest.approx(scores["exact"] - scores["bound"])
    assert scores["exact"] > max(scores["bound"], scores["iwae"], scores["fivo"])
    assert scores["exact"] > max(scores["baselines"].values())


def test_baselines_of_real_series_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    train = [np.cumsum(rng.normal(size=(40, 2)), 0) for _ in range(3)]
    train[0][3:6, 0] = np.nan
    x = np.cumsum(rng.normal(size=(9, 2)), 0)
    x[4, 1] = np.nan

    def normal(v: float, m: float, s: float) -> float:
        return -0.5 * ((v - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)

    expected = dict.fromkeys(("independent", "last value", "AR(1)"), 0.0)
    for d in range(2):
        values = np.concatenate([t[:, d] for t in train])
        values = values[~np.isnan(values)]
        pairs = [(a, b) for t in train for a, b in zip(t[:-1, d], t[1:, d], strict=True) if not np.isnan(a + b)]
        before, after = np.array(pairs).T
        slope, offset = np.polyfit(before, after, 1)
        step = math.sqrt(np.mean((after - before) ** 2))
        rest = math.sqrt(np.mean((after - offset - slope * before) ** 2))
        for t in range(9):
            if np.isnan(x[t, d]):
                continue
            alone = normal(x[t, d], values.mean(), values.std())
            first = t == 0 or np.isnan(x[t - 1, d])
            expected["independent"] += alone
            expected["last value"] += alone if first else normal(x[t, d], x[t - 1, d], step)
            expected["AR(1)"] += alone if first else normal(x[t, d], offset + slope * x[t - 1, d], rest)
    found = series_baselines.fit(train, "real")
    assert {name: baseline(x) for name, baseline in found.items()} == pytest.approx(expected, rel=1e-9)
    assert series_baselines.per_frame(found["AR(1)"], [x, x]) == pytest.approx(expected["AR(1)"] / 9)


def test_baselines_of_binary_series_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    train = [(rng.random((20, 3)) < 0.4).astype(float) for _ in range(2)]
    x = (rng.random((6, 3)) < 0.4).astype(float)
    expected = dict.fromkeys(("independent", "last value", "Markov"), 0.0)
    kept = sum(np.sum(t[1:] == t[:-1]) for t in train)
    stays = (kept + 0.5) / (2 * 19 * 3 + 1)
    for d in range(3):
        p = (sum(t[:, d].sum() for t in train) + 0.5) / 41
        for t in range(6):
            alone = math.log(p if x[t, d] else 1 - p)
            expected["independent"] += alone
            if t == 0:
                expected["last value"] += alone
                expected["Markov"] += alone
                continue
            expected["last value"] += math.log(stays if x[t, d] == x[t - 1, d] else 1 - stays)
            seen = [s[k + 1, d] for s in train for k in range(19) if s[k, d] == x[t - 1, d]]
            q = (sum(seen) + 0.5) / (len(seen) + 1)
            expected["Markov"] += math.log(q if x[t, d] else 1 - q)
    found = series_baselines.fit(train, "binary")
    assert {name: baseline(x) for name, baseline in found.items()} == pytest.approx(expected, rel=1e-9)


def test_a_run_that_was_stopped_ends_with_the_same_bits(arguments: DataArguments, tmp_path: Path) -> None:
    config, options = dataclasses.replace(TINY, gaps=0.1, crop=20, dropout=0.1), dataclasses.replace(OPTIONS, epochs=4)

    def started(name: str) -> tuple[Run, SSMTask, Trainer]:
        run = Run(tmp_path / name, "ssm", config, options, arguments, seed=3)
        (tmp_path / name).mkdir()
        task = run.start()
        run.write_start(task)
        assert isinstance(task, SSMTask)
        return run, task, Trainer(task, options, 3, run)

    _, whole, trainer = started("whole")
    trainer.fit()
    run, _, trainer = started("parts")
    update, done = trainer._update, []
    trainer._update = lambda batch: (done.append(update(batch)), setattr(trainer, "interrupted", len(done) == 7))  # type: ignore[assignment]
    assert trainer.fit().reason == "interrupted"
    run = Run.open(run.folder)
    task, arrays, state = run.resume()
    trainer = Trainer(task, options, 3, run)
    trainer.load(arrays, state, run.read_metrics())
    trainer.fit()
    for name, array in whole.model.state_dict().items():
        assert np.array_equal(array, task.model.state_dict()[name]), name


def test_a_restored_task_needs_no_data(trained: SSMTask, tmp_path: Path) -> None:
    folder = saved(trained, tmp_path / "run")
    described = json.loads((folder / "config.json").read_text())
    described["data"]["source"] = "gone.csv"
    (folder / "config.json").write_text(json.dumps(described))
    task = Run.open(folder).task()
    assert isinstance(task, SSMTask)
    again = [task.sample(2, np.random.default_rng(1), tmp_path).files[1].read_bytes() for _ in range(2)]
    assert again[0] == again[1] == trained.sample(2, np.random.default_rng(1), tmp_path).files[1].read_bytes()


def test_what_is_wrong_with_the_form_is_said(trained: SSMTask, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"series\.json is missing"):
        SSMTask.restore(trained.config, trained.data, tmp_path)
    trained.save_extras(tmp_path)
    whole = (tmp_path / "series.json").read_text()
    (tmp_path / "series.json").write_text(whole[:-10])
    with pytest.raises(MinirnnError, match=r"series\.json is damaged"):
        SSMTask.restore(trained.config, trained.data, tmp_path)
    (tmp_path / "series.json").write_text(whole)
    with pytest.raises(MinirnnError, match="holds 2 columns, the model was made for 3; it belongs to another run"):
        SSMTask.restore(dataclasses.replace(trained.config, observed=3), trained.data, tmp_path)


def test_samples_are_a_file_in_the_units_of_the_data(trained: SSMTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    drawn = trained.sample(3, np.random.default_rng(0), tmp_path, length=25)
    assert [path.name for path in drawn.files] == ["samples.png", "samples.csv"]
    assert drawn.files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = csv.read(drawn.files[1])
    assert (table.columns, [x.shape for x in table.series]) == (("high", "low"), [(25, 2)] * 3)
    assert 700 < np.mean(table.series[0][:, 0]) < 1300
    assert np.abs(table.series[0][:, 1]).max() < 0.1


def test_a_forecast_holds_what_comes(trained: SSMTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    inside = []
    for k, x in enumerate(swings(3, 30, np.random.default_rng(5))):
        path = csv.write(tmp_path / "past.csv", ("low", "high"), [x[:24, ::-1]])  # the columns go by their names
        columns = trained.forecast(6, tmp_path, np.random.default_rng(k), path=path, level=0.9).columns
        assert list(columns) == ["step", "high", "high 0.05", "high 0.95", "low", "low 0.05", "low 0.95"]
        for d, name in enumerate(("high", "low")):
            median, low, high = (np.array(columns[key]) for key in (name, f"{name} 0.05", f"{name} 0.95"))
            assert ((low < median) & (median < high)).all()
            inside += ((low < x[24:, d]) & (x[24:, d] < high)).tolist()
    assert np.mean(inside) > 0.6  # of 36, loosely: this small model is not calibrated to the last percent
    first = trained.forecast(3, tmp_path, np.random.default_rng(0))
    assert first.columns == trained.forecast(3, tmp_path, np.random.default_rng(0)).columns
    assert first.columns["step"] == [1, 2, 3]
    assert first.files == [tmp_path / "forecast.png"]


def test_files_that_cannot_be_continued(trained: SSMTask, tmp_path: Path) -> None:
    x = np.ones((5, 3))
    for columns, series, message in (
        (("a", "b", "c"), [x], r"has 3 columns of values, the model was made for 2 \(high, low\)"),
        (("high", "low"), [x[:, :2], x[:, :2]], "holds 2 series; one is needed"),
    ):
        path = csv.write(tmp_path / "bad.csv", columns, series)
        with pytest.raises(MinirnnError, match=message):
            trained.forecast(2, tmp_path, np.random.default_rng(0), path=path)


def test_music_is_seen_and_heard(musician: SSMTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    drawn = musician.sample(2, np.random.default_rng(0), tmp_path)
    names = ["samples.png", "sample-1.mid", "sample-1.wav", "sample-2.mid", "sample-2.wav"]
    assert [path.name for path in drawn.files] == names
    roll = musician.model.sample(musician.form.length, 2, np.random.default_rng(0))[0]
    assert np.array_equal(music.read_midi(tmp_path / "sample-1.mid"), roll)
    with wave.open(str(tmp_path / "sample-1.wav")) as file:
        assert file.getnframes() > 0
    found = musician.forecast(4, tmp_path, np.random.default_rng(0), path=tmp_path / "sample-1.mid")
    assert [path.name for path in found.files] == ["forecast.png", "forecast.mid", "forecast.wav"]
    assert np.array_equal(music.read_midi(tmp_path / "forecast.mid")[:16], roll)
    assert all(0 <= p <= 1 for name, column in found.columns.items() if name != "step" for p in column)
    assert set(musician.samples(2)[0]) == {"series", "next chord, one draw", "what came"}
    assert [path.name for path in musician.pictures(tmp_path)] == ["continued.png"]


def test_pictures_rows_and_hints(trained: SSMTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    assert [path.name for path in trained.pictures(tmp_path)] == ["forecast.png", "filtered.png"]
    assert len(trained.samples(3)) == 3
    assert all(len(row) == 5 for row in trained.samples(3))
    assert {hint[0] for hint in trained.hints(tmp_path)} == {"sample", "forecast", "study"}
    assert "series of 2 numbers a frame from swings.csv" in trained.describe()


def test_another_run_is_scored_beside_it(trained: SSMTask, arguments: DataArguments, tmp_path: Path) -> None:
    other = SSMTask.build(dataclasses.replace(TINY, model="lstm"), arguments, seed=1)
    folder = saved(other, tmp_path / "other")
    scores = trained.evaluate("test", samples=2, against=folder)["against"]
    other.model.eval()
    assert scores["log_likelihood"] == pytest.approx(other.evaluate("test")["log_likelihood"])
    elsewhere = SSMTask.build(TINY, DataArguments("pendulum"), seed=0)
    with pytest.raises(MinirnnError, match=r"other has learnt .*swings\.csv, not pendulum: the scores cannot be compared"):
        elsewhere.evaluate("test", samples=1, against=folder)


def test_what_the_model_is_shown(arguments: DataArguments) -> None:
    task = SSMTask.build(dataclasses.replace(TINY, crop=8, gaps=0.3), arguments, seed=0)
    assert task.config.missing
    batches = task.batches(0, np.random.default_rng(0))
    numbers = np.concatenate([batch.numbers for batch in batches])
    assert sorted(numbers) == list(range(4 * len(task.series.train)))  # 30 frames: four pieces of 8 at the most
    shown = [x for batch in batches for x in task.shown(batch)]
    assert {x.shape for x in shown} == {(8, 2)}
    assert 0.1 < np.mean([np.isnan(x).all(1).mean() for x in shown]) < 0.4
    again = task.shown(batches[0])
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(again, task.shown(batches[0]), strict=True))


def test_transposed_music_keeps_its_intervals() -> None:
    task = music_task(dataclasses.replace(TINY, transpose=5))
    (batch, *_) = task.batches(0, np.random.default_rng(0))
    moves = set()
    for x, number in zip(task.shown(batch), batch.numbers, strict=True):
        original = task.series.train[number]
        move = np.flatnonzero(x[0])[0] - np.flatnonzero(original[0])[0]
        assert np.array_equal(np.roll(original, move, axis=1), x)
        moves.add(int(move))
    assert len(moves) > 2
    assert max(map(abs, moves)) <= 5
    edge = np.zeros((1, 88))
    edge[0, 86] = 1
    assert np.array_equal(series_pieces.transposed(edge, 3), edge)  # a note would fall off
    assert series_pieces.transposed(edge, 1)[0, 87] == 1
    assert np.array_equal(series_pieces.transposed(edge[:, ::-1], -3), edge[:, ::-1])


def test_data_that_do_not_fit(arguments: DataArguments, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"transpose moves music, but swings\.csv is none"):
        SSMTask.build(dataclasses.replace(TINY, transpose=2), arguments, seed=0)
    with pytest.raises(MinirnnError, match=r"cldr holds .* but series are needed"):
        SSMTask.build(TINY, DataArguments("cldr"), seed=0)
    gappy = csv.write(tmp_path / "gappy.csv", ("a",), [np.where(np.arange(30) == 4, np.nan, np.arange(30.0))[:, None]])
    assert SSMTask.build(TINY, DataArguments(str(gappy)), seed=0).config.missing
    task = SSMTask.build(TINY, arguments, seed=0)
    task.series = dataclasses.replace(task.series, valid=[np.full((3, 2), np.nan)])
    with pytest.raises(MinirnnError, match="has a missing observation"):
        task.validate()


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("crop", -1), ("transpose", -1), ("gaps", 1.0), ("layers", 0)])
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        dataclasses.replace(TINY, **{name: value})
