"""Series: what is simulated obeys its equations, what is in a file is read as it stands, and columns are scaled exactly."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import music, source
from minirnn.data.kinds import Series
from minirnn.data.scaling import Scaling
from minirnn.data.sources import lgssm, pendulum, series
from minirnn.errors import MinirnnError


def same(a: Series, b: Series) -> bool:
    pairs = [pair for split in ("train", "valid", "test") for pair in zip(getattr(a, split), getattr(b, split), strict=True)]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


@pytest.mark.parametrize("name", ["pendulum", "lgssm"])
def test_a_simulation_follows_its_seed(name: str) -> None:
    data = source(name, kind=Series)
    assert {x.shape[1] for x in data.train + data.valid + data.test} == {len(data.columns)}
    assert data.observation == "real"
    assert same(data, source(name, seed=0, kind=Series))
    assert not same(data, source(name, seed=1, kind=Series))


def test_the_pendulum_swings_with_the_period_of_a_pendulum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kicks and friction the energy stays, and a swing to 90 degrees takes T = 4 K(sin 45 degrees) sqrt(l / g)."""
    special = pytest.importorskip("scipy.special", reason="elliptic integrals come from SciPy")
    for name, value in (("DAMPING", 0.0), ("KICKS", 0.0), ("SUBSTEPS", 200)):
        monkeypatch.setattr(pendulum, name, value)

    class Start:
        def uniform(self, low: float, high: float, count: int) -> np.ndarray:
            return np.full(count, np.pi / 2)

        def normal(self, mean: float, std: float, size: object) -> np.ndarray:
            return np.zeros(size)

    films = pendulum.simulate(1, 120, Start())  # type: ignore[arg-type]
    theta, omega = films.state[0].T
    energy = omega**2 / 2 - pendulum.GRAVITY / pendulum.LENGTH * np.cos(theta)
    assert np.abs(energy).max() < 0.02 * pendulum.GRAVITY  # of first order in the step of 0.5 ms
    crossings = np.flatnonzero((theta[:-1] > 0) & (theta[1:] <= 0))
    moments = crossings + theta[crossings] / (theta[crossings] - theta[crossings + 1])
    period = np.diff(moments).mean() * pendulum.PERIOD
    assert period == pytest.approx(4 * special.ellipk(0.5) * np.sqrt(pendulum.LENGTH / pendulum.GRAVITY), rel=2e-3)
    assert np.allclose(films.place[0], np.stack([np.sin(theta), -np.cos(theta)], 1))


def test_the_noise_of_the_camera_is_what_it_says() -> None:
    films = pendulum.simulate(200, 50, np.random.default_rng(0))
    noise = films.seen - films.place
    assert noise.std() == pytest.approx(pendulum.NOISE, rel=5 / np.sqrt(2 * noise.size))  # five standard errors


def test_lgssm_has_the_moments_of_its_truth() -> None:
    truth = lgssm.load().truth
    assert truth is not None
    A, B, C, D, P0 = (truth[name] for name in ("A", "B", "C", "D", "P0"))
    assert np.allclose(A @ P0 @ A.T + B @ B.T, P0)  # stationary
    x = lgssm.simulate(20_000, 5, np.random.default_rng(1))
    covariance = C @ P0 @ C.T + D @ D.T
    bound = 6 * np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()) / 20_000)
    for t in (0, 4):
        assert (np.abs(x[:, t].T @ x[:, t] / 20_000 - covariance) < bound).all()
    lagged = C @ A @ P0 @ C.T
    assert (np.abs(x[:, 3].T @ x[:, 2] / 20_000 - lagged) < bound).all()


def test_jsb_is_what_was_published(data_dir: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files are read by SciPy")
    data = source("jsb", data_dir, kind=Series)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [229, 76, 77]
    assert sum(map(len, data.train)) == 13807
    assert sum(map(len, data.test)) == 4725
    values = np.concatenate(data.train + data.valid + data.test)
    assert set(np.unique(values)) == {0, 1}
    assert values.sum(1).max() <= 15
    assert (data.observation, data.columns) == ("binary", music.key_names())


@pytest.mark.skipif(importlib.util.find_spec("music21") is None, reason="the scores come with music21: pip install music21")
def test_chorales_have_four_voices_and_no_tune_twice() -> None:
    data = source("chorales", kind=Series)
    assert min(map(len, (data.train, data.valid, data.test))) > 60
    values = np.concatenate(data.train + data.valid + data.test)
    assert 3.5 < values.sum(1).mean() <= 4  # two voices are on one key now and then

    def opening(x: np.ndarray) -> tuple[int, ...]:  # of the upper edge, which is the soprano but where the alto crosses it
        return tuple(np.diff(x[:8, ::-1].argmax(1)))

    train = {opening(x) for x in data.train}
    assert np.mean([opening(x) in train for x in data.test]) < 0.05


def test_chorales_without_music21(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MinirnnError, match="chorales come with the package music21: pip install music21; or take jsb"):
        source("chorales", kind=Series)


def test_a_score_is_read_note_by_note(tmp_path: Path) -> None:
    from minirnn.data.sources.chorales import piano_roll, read

    note = "<note>{}<pitch><step>{}</step>{}<octave>{}</octave></pitch><duration>{}</duration></note>"
    measures = [
        "<attributes><divisions>2</divisions></attributes>",
        note.format("", "C", "", 4, 2),  # one quarter
        note.format("<chord/>", "E", "<alter>-1</alter>", 4, 2),
        "<note><grace/><pitch><step>G</step><octave>4</octave></pitch></note>",
        "<note><rest/><duration>2</duration></note>",
        "<backup><duration>2</duration></backup>",
        note.format("", "F", "<alter>1</alter>", 3, 1),  # an eighth
        note.format("", "A", "", 4, 1),
    ]
    path = tmp_path / "score.xml"
    path.write_text(f"<score-partwise><part id='P1'><measure>{''.join(measures)}</measure></part></score-partwise>")
    (notes,) = read(path)
    assert notes == [(0, 1, 60), (0, 1, 63), (1, 0.5, 54), (1.5, 0.5, 69)]
    roll = piano_roll([notes])
    assert roll.shape == (2, 88)
    assert [set(np.flatnonzero(row) + 21) for row in roll] == [{60, 63}, {54}]  # what sounds on the beat
    path.write_text("<score")
    with pytest.raises(MinirnnError, match=r"score\.xml: not a score in MusicXML"):
        read(path)


def file(tmp_path: Path, content: str) -> str:
    path = tmp_path / "some.csv"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_a_file_with_names_gaps_and_dates(tmp_path: Path) -> None:
    path = file(tmp_path, "date,a,b\n2020-01-01,1,2\n2020-01-02,,3\n2020-01-03,nan,-4e1\n")
    table = series.read(path)
    assert table.columns == ("a", "b")
    assert np.array_equal(table.series[0], [[1, 2], [np.nan, 3], [np.nan, -40]], equal_nan=True)


@pytest.mark.parametrize(
    "content",
    ["1,2\n3,4\n\n5,6\n", "a;b\n1;2\n3;4\n\n5;6\n", "a,series,b\n1,u,2\n3,u,4\n5,v,6\n", '"a"\t"b"\n1\t2\n3\t4\n\n\n5\t6'],
)
def test_several_series_in_a_file(content: str, tmp_path: Path) -> None:
    found = series.read(file(tmp_path, content)).series
    assert [x.tolist() for x in found] == [[[1, 2], [3, 4]], [[5, 6]]]


@given(columns=st.integers(1, 4), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_what_is_written_is_read(columns: int, lengths: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    written = [rng.normal(size=(n, columns)) * 10.0 ** rng.integers(-20, 20) for n in lengths]
    for x in written:
        x[rng.random(x.shape) < 0.2] = np.nan
    written[0][0, 0] = 1.5
    names = tuple(f"c{k}" for k in range(columns))
    table = series.read(series.write(tmp_path_factory.mktemp("csv") / "a.csv", names, written))
    assert table.columns == names
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(table.series, written, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", r"some\.csv, line 3: 1 cells, but the first line has 2"),
        ("a,b\n1,2\n\n3,x\n", r"some\.csv, line 4, column b: expected a number, or nothing where it is missing, not 'x'"),
        ("1,2\n3,inf\n", "line 2, column x2: expected a number"),
        ("1,x\n", "line 1, column x2: expected a number"),
        ("", "the file is empty; expected rows of numbers, separated by commas"),
        ("a,b\n", "there are no rows below the names a, b"),
        ("date\n2020\n", "there is no column of values beside date"),
        ("a\nnan\nna\n", "all values are missing"),
        ("a\n1\n2\n3\n", "a series of 3 steps is too short to be split in time, which takes 20"),
    ],
)
def test_bad_files(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=message):
        source(file(tmp_path, content), kind=Series)


def test_few_series_are_split_in_time_and_many_as_they_are(tmp_path: Path) -> None:
    one = source(file(tmp_path, "\n".join(map(str, range(100)))), kind=Series)
    parts = [part[0].ravel().tolist() for part in (one.train, one.valid, one.test)]
    assert parts == [list(range(70)), list(range(70, 85)), list(range(85, 100))]
    assert "split in time" in one.note
    many = source(file(tmp_path, "\n\n".join(f"{k}\n{k}" for k in range(20))), kind=Series)
    assert [len(part) for part in (many.train, many.valid, many.test)] == [14, 3, 3]
    assert sorted(x[0, 0] for x in many.train + many.valid + many.test) == list(range(20))


def test_zeros_and_ones_are_binary(tmp_path: Path) -> None:
    assert source(file(tmp_path, "0,1\n" * 30), kind=Series).observation == "binary"
    assert source(file(tmp_path, "0,1\n" * 30 + "0,2\n"), kind=Series).observation == "real"


@given(st.integers(1, 5), st.integers(0, 999))
def test_scaling_is_a_change_of_variables(columns: int, seed: int) -> None:
    """p(x) of N(mean, std^2) is p(y) of N(0, 1) over the product of std, also where values are missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 10.0 ** rng.integers(-3, 4), (30, columns))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[0] = np.arange(columns)
    scaling = Scaling.of([x[:10], x[10:]])
    y = scaling.apply(x)
    assert np.allclose(scaling.undo(y), x, rtol=1e-12, equal_nan=True)

    def normal(v: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
        return float(np.nansum(-0.5 * ((v - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 0 * v))

    expected = normal(x, scaling.mean, scaling.std)
    found = normal(y, np.zeros(columns), np.ones(columns)) - scaling.log_jacobian(x)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * x.size)
    assert np.allclose(np.nanmean(y, 0), 0, atol=1e-9)
    assert np.allclose(np.nanstd(y, 0), 1, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_column_that_never_changes_keeps_its_scale(value: float) -> None:
    scaling = Scaling.of([np.stack([np.full(5, value), np.arange(5.0)], 1)])
    assert scaling.std[0] == 1
    assert Scaling.from_json(scaling.to_json()).std.tolist() == scaling.std.tolist()


@pytest.mark.parametrize("change", [lambda s: s["std"].pop(), lambda s: s["std"].__setitem__(0, 0.0), lambda s: s.pop("mean")])
def test_a_damaged_scaling_is_refused(change: Callable[[dict[str, list[float]]], object]) -> None:
    stored = Scaling.none(2).to_json()
    change(stored)
    with pytest.raises((ValueError, KeyError)):
        Scaling.from_json(stored)
