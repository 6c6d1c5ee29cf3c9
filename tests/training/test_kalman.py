"""The task of the linear Gaussian state-space model: EM and gradients through the trainer, and what may be asked of a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minirnn.autograd import no_grad
from minirnn.data.sources import lgssm, nile
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.models.linear_gaussian_ssm import LinearGaussianSSM
from minirnn.training import DataArguments, Run, Trainer, TrainingOptions
from minirnn.training.tasks.kalman import KalmanConfig, KalmanTask

NILE = DataArguments("nile")
LOG_LIKELIHOOD = -632.5456  # of the Nile's local level at its maximum, given the first year


def fitted(config: KalmanConfig, epochs: int, data: DataArguments = NILE, lr: float = 0.05) -> KalmanTask:
    task = KalmanTask.build(config, data, seed=0)
    Trainer(task, replace(KalmanTask.training, epochs=epochs, lr=lr)).fit()
    task.model.eval()
    return task


@pytest.fixture(scope="module")
def trained() -> KalmanTask:
    return fitted(KalmanConfig(iterations=200), epochs=2)


def written(folder: Path, count: int, steps: int, columns: int, seed: int = 0, missing: float = 0.0) -> DataArguments:
    """Random walks of very different sizes, seen through noise."""
    rng, units = np.random.default_rng(seed), 10.0 ** np.arange(columns)
    walks = [units * (rng.standard_normal((steps, columns)).cumsum(0) + 0.5 * rng.standard_normal((steps, columns))) for _ in range(count)]
    for x in walks:
        x[rng.random(x.shape) < missing] = np.nan
    return DataArguments(str(csv.write(folder / "walks.csv", [f"c{k}" for k in range(columns)], walks)))


def test_em_finds_the_published_variances_of_the_nile(trained: KalmanTask) -> None:
    scores = trained.evaluate("test")
    assert scores["log_likelihood"] == pytest.approx(LOG_LIKELIHOOD, abs=1e-3)
    assert scores["published"]["log_likelihood"] == pytest.approx(LOG_LIKELIHOOD, abs=1e-3)
    for name, value in nile.PUBLISHED.items():
        assert scores["variances"][name] == pytest.approx(value, rel=1e-3)
    assert scores["per_step"] > max(scores["baselines"].values())
    assert scores["rmse"] < min(scores["baseline_rmse"].values())
    assert 0.8 < scores["coverage"] < 0.97  # of 99: 0.9 give or take three standard errors


@pytest.mark.parametrize("standardise", [True, False])
def test_em_through_the_trainer_is_the_model_s_em(standardise: bool) -> None:
    task = fitted(KalmanConfig(iterations=5, standardise=standardise), epochs=3)
    other = KalmanTask.build(KalmanConfig(standardise=standardise), NILE, seed=0)
    other.model.em([other.form.scaling.apply(x) for x in other.series.train], 15, learn=("Q", "R"))
    for name, array in other.model.state_dict().items():
        np.testing.assert_allclose(task.model.state_dict()[name], array, rtol=1e-9, atol=1e-12)


def test_the_likelihood_never_falls_under_em() -> None:
    task = KalmanTask.build(KalmanConfig(structure="local_linear_trend"), NILE, seed=0)
    losses = [task.update(0, step) for step in range(60)]
    assert (np.diff(np.array(losses, np.float64)) <= 1e-12).all()
    for factor in (task.model.B.data, task.model.D.data):
        assert np.array_equal(factor, np.diag(np.diag(factor)))


def test_the_gradient_reaches_the_likelihood_of_em(trained: KalmanTask) -> None:
    by_gradient = fitted(KalmanConfig(method="gradient", iterations=100), epochs=5)
    assert by_gradient.evaluate("test")["log_likelihood"] == pytest.approx(trained.evaluate("test")["log_likelihood"], abs=1e-2)
    unlearnt = KalmanTask.build(KalmanConfig(method="gradient"), NILE, seed=0)
    for name in ("A", "b", "C", "d"):
        assert np.array_equal(getattr(by_gradient.model, name).data, getattr(unlearnt.model, name).data)


def test_the_loss_is_that_of_em_and_of_the_data_s_units(tmp_path: Path) -> None:
    for data in (NILE, written(tmp_path, 4, 30, 2, missing=0.2)):
        task, plain = (KalmanTask.build(KalmanConfig(standardise=s), data, seed=0) for s in (True, False))
        loss = task.loss(0, 0).item()
        assert plain.loss(0, 0).item() == pytest.approx(loss, rel=1e-9)  # the same model, whatever its units
        assert task.update(0, 0) == pytest.approx(loss, rel=1e-9)
        total = sum(task._log_likelihood(x) for x in task.series.train)
        assert total > -loss * task.size(0)  # EM has made one step since


@pytest.mark.parametrize("method", ["em", "gradient"])
def test_a_stopped_run_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    data = written(tmp_path, 4, 20, 2)
    config = KalmanConfig(structure="general", states=2, method=method, iterations=3)  # type: ignore[arg-type]

    def trainer(folder: Path, epochs: int) -> Trainer:
        run = Run(folder, "kalman", config, TrainingOptions(epochs=epochs, lr=0.01), data, seed=1, device="cpu", kernel=None)
        folder.mkdir()
        task = run.start()
        run.write_start(task)
        return Trainer(task, run.training, run.seed, run)

    whole = trainer(tmp_path / "whole", 4)
    whole.fit()
    trainer(tmp_path / "half", 2).fit()
    run = Run.open(tmp_path / "half")
    task, arrays, state = run.resume()
    resumed = Trainer(task, replace(run.training, epochs=4), run.seed, run)
    resumed.load(arrays, state, run.read_metrics(state.step))
    resumed.fit()
    for name, array in whole.task.model.state_dict().items():
        assert np.array_equal(task.model.state_dict()[name], array), name


def test_missing_observations(tmp_path: Path) -> None:
    data = written(tmp_path, 4, 40, 2, missing=0.3)
    for structure in ("local_level", "local_linear_trend", "general"):
        task = fitted(KalmanConfig(structure=structure, iterations=20), epochs=2, data=data)  # type: ignore[arg-type]
        assert not task.config.diffuse  # a first observation is missing somewhere
        scores = task.evaluate("test")
        assert np.isfinite([scores["per_step"], scores["coverage"], *scores["rmse"].values()]).all()
        assert task.samples(3)
    assert "c1" in scores["rmse"]


def test_a_general_model_learns_the_truth_of_lgssm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lgssm, "TRAIN", 100)
    task = fitted(KalmanConfig(structure="general", states=2, iterations=15), epochs=2, data=DataArguments("lgssm"))
    scores = task.evaluate("test")
    assert scores["exact"] > scores["per_step"] > scores["exact"] - 0.05
    assert scores["per_step"] > max(scores["baselines"].values()) + 0.1


def test_what_is_hidden_is_filled_in(trained: KalmanTask) -> None:
    (x,) = trained.series.test
    seen = x.copy()
    seen[20:40] = np.nan
    filled, whole = trained.fill(seen), trained.fill(x)
    assert (filled.std[20:40] > whole.std[20:40]).all()
    assert np.argmax(filled.std[20:40]) in (9, 10)  # most uncertain in the middle of the gap
    line = np.linspace(filled.mean[19, 0], filled.mean[40, 0], 22)
    np.testing.assert_allclose(filled.mean[19:41, 0], line, rtol=1e-9)  # a random walk between two ends: the straight line
    rows = trained.samples(5)
    assert len(rows) == 5
    assert all(1891 <= int(row["time"]) <= 1950 for row in rows)


def test_forecasts_are_flat_and_widen(trained: KalmanTask, tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("matplotlib")
    found = trained.forecast(10, tmp_path, rng, level=0.8)
    name = trained.form.columns[0]
    mean, low, high = (np.array(found.columns[key]) for key in (name, f"{name} 0.1", f"{name} 0.9"))
    np.testing.assert_allclose(mean, mean[0], rtol=1e-9)
    assert (np.diff(high - low) > 0).all()
    assert found.columns["time"] == list(range(1971, 1981))
    assert [path.name for path in found.files] == ["forecast.png"]
    assert found.files[0].stat().st_size > 1000
    # A longer past of the same numbers in a file gives the same forecast; rows before the first observation are left out.
    x = np.vstack([np.full((3, 1), np.nan), trained.series.test[0]])
    path = csv.write(tmp_path / "nile.csv", [name], [x])
    again = trained.forecast(10, tmp_path, rng, path=path, level=0.8)
    np.testing.assert_allclose(again.columns[name], mean, rtol=1e-6)


def test_a_file_of_another_width(trained: KalmanTask, tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "two.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(MinirnnError, match=r"two.csv has 2 columns of values, the model was made for 1 \(annual flow"):
        trained.forecast(3, tmp_path, rng, path=tmp_path / "two.csv")
    (tmp_path / "ragged.csv").write_text("a\n1\n2,3\n")
    with pytest.raises(MinirnnError, match=r"ragged.csv, line 3: 2 cells, but the first line has 1"):
        KalmanTask.build(KalmanConfig(), DataArguments(str(tmp_path / "ragged.csv")), 0)
    (tmp_path / "empty.csv").write_text("a\n1\nnan\n")
    path = csv.write(tmp_path / "late.csv", ["x", "y"], [np.array([[1.0, np.nan], [np.nan, 2.0]])])
    two = fitted(KalmanConfig(iterations=1), epochs=1, data=written(tmp_path, 4, 20, 2))
    with pytest.raises(MinirnnError, match=r"late.csv: no row has a value in every column"):
        two.forecast(3, tmp_path, rng, path=path)


def test_samples_follow_the_generator_and_the_temperature(trained: KalmanTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def draw(temperature: float) -> np.ndarray:
        drawn = trained.sample(20, np.random.default_rng(0), tmp_path, temperature=temperature, length=30)
        assert [path.name for path in drawn.files] == ["samples.png", "samples.csv"]
        return np.stack(csv.read(tmp_path / "samples.csv").series)

    samples = draw(1.0)
    assert np.array_equal(samples, draw(1.0))
    steps = np.diff(samples, axis=1).std()
    expected = np.sqrt(1469.1 + 2 * 15099)  # of the step from one noisy look at a random walk to the next
    assert steps == pytest.approx(expected, rel=0.12)  # 580 of them, neighbours of which share a look: four standard errors
    assert np.diff(draw(0.25), axis=1).std() == pytest.approx(steps / 2, rel=1e-2)


def test_the_demo_s_picture_and_words(trained: KalmanTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert [path.name for path in trained.pictures(tmp_path)] == ["nile.png"]
    assert (tmp_path / "nile.png").stat().st_size > 10_000
    text = trained.describe()
    for words in ("100 steps", "public domain", "One series alone", "local level model", "Q, R learnt by EM"):
        assert words in text
    assert [hint[0] for hint in trained.hints(tmp_path)] == ["forecast", "sample"]


def test_a_run_s_folder_is_enough(trained: KalmanTask, tmp_path: Path) -> None:
    trained.save_extras(tmp_path)
    restored = KalmanTask.restore(trained.config, NILE, tmp_path)
    restored.model.load_state_dict(trained.model.state_dict())
    with no_grad():
        assert restored.evaluate("valid") == trained.evaluate("valid")
    with pytest.raises(MinirnnError, match="holds 1 columns, the model was made for 2; it belongs to another run"):
        KalmanTask.restore(replace(trained.config, columns=2), NILE, tmp_path)
    (tmp_path / "series.json").write_text("{}")
    with pytest.raises(MinirnnError, match="is damaged"):
        KalmanTask.restore(trained.config, NILE, tmp_path)
    (tmp_path / "series.json").unlink()
    with pytest.raises(MinirnnError, match=r"series.json is missing"):
        KalmanTask.restore(trained.config, NILE, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"states": -1, "structure": "general"}, "states must not be negative"),
        ({"states": 3}, "states is for structure=general; local_level has its own number"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KalmanConfig(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_learnt_or_learnt_from(tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match="learn=Q,S: 'S' cannot be learnt here; there are A, Q, R, b"):
        KalmanTask.build(KalmanConfig(learn="Q,S"), NILE, 0)
    with pytest.raises(MinirnnError, match="learn=,: nothing is named"):
        KalmanTask.build(KalmanConfig(learn=","), NILE, 0)
    path = csv.write(tmp_path / "bits.csv", ["a"], [np.array([[0.0], [1.0]])] * 4)
    with pytest.raises(MinirnnError, match=r"bits.csv holds zeros and ones, and this model is one of real numbers: train ssm"):
        KalmanTask.build(KalmanConfig(), DataArguments(str(path)), 0)
    path = csv.write(tmp_path / "short.csv", ["a"], [np.array([[k + 0.5]]) for k in range(4)])
    with pytest.raises(MinirnnError, match=r"short.csv: at least one series of 2 steps or more"):
        KalmanTask.build(KalmanConfig(), DataArguments(str(path)), 0)


@pytest.mark.parametrize("form", ["square_root", "parallel"])
def test_the_model_in_other_forms(form: str) -> None:
    model, x = LinearGaussianSSM.local_level(1469.1, 15099.0), nile.load().train[0]
    assert model.log_likelihood(x, form=form) == pytest.approx(LOG_LIKELIHOOD, abs=1e-3)  # type: ignore[arg-type]
    for a, b in zip(model.smooth(x, form=form), model.smooth(x), strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())
    with pytest.raises(ValueError, match="form must be covariance, square_root or parallel, got 'cubic'"):
        model.filter(x, form="cubic")  # type: ignore[arg-type]
