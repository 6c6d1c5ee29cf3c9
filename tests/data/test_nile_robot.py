from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from minirnn.data import Series, get, source
from minirnn.data.sources import nile, robot
from minirnn.errors import MinirnnError


def test_the_nile_is_the_published_series(data_dir: Path) -> None:
    if not (data_dir / nile.FILE.path).is_file():
        pytest.skip(f"needs {nile.FILE.path} in MINIRNN_DATA")
    published = np.loadtxt(data_dir / nile.FILE.path, delimiter=",", skiprows=1)  # year, volume
    series = nile.load()
    (flow,) = series.train
    assert np.array_equal(flow[:, 0], published[:, 1])
    assert np.array_equal(series.start + series.period * np.arange(len(flow)), published[:, 0])


def test_the_nile_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRNN_DATA", str(tmp_path))
    series = source("nile", kind=Series)
    assert get("nile") == []
    assert series.train[0].shape == (100, len(series.columns))
    assert series.train[0].mean() == 919.35  # Durbin and Koopman's series sums to 91,935
    assert (series.start, series.start + 99 * series.period) == (1871, 1970)
    assert "one step ahead" in series.note


def robot_of(data_dir: Path) -> robot.Robot:
    pytest.importorskip("scipy", reason="MATLAB files are read with SciPy")
    if not (data_dir / robot.FILE.path).is_file():
        pytest.skip(f"needs {robot.FILE.path} in MINIRNN_DATA")
    return robot.read(str(data_dir))


def test_the_robot_has_a_state_before_its_first_observation(data_dir: Path) -> None:
    found = robot_of(data_dir)
    (T, D), (H, _) = found.x.shape, found.A.shape
    assert (T, D, H) == (501, 2, 5)
    assert np.isnan(found.x[0]).all()
    assert np.isfinite(found.x[1:]).all()
    assert found.b.shape == (T, H)
    assert not found.b[0].any()
    assert found.C.shape == (D, H)
    assert len(found.log_likelihoods) == 50
    assert (np.diff(found.log_likelihoods) > 0).all()  # EM never goes down
    (x,) = source("robot", data_dir, kind=Series).train
    assert np.array_equal(x, found.x, equal_nan=True)


def test_a_robot_file_cut_short(data_dir: Path, tmp_path: Path) -> None:
    robot_of(data_dir)
    (tmp_path / "robot.mat").write_bytes((data_dir / robot.FILE.path).read_bytes()[:1000])
    with pytest.raises(MinirnnError, match=r"robot.mat is not the expected file: it has 1,000 of 187,886 bytes and was cut short"):
        source("robot", tmp_path, kind=Series)


def test_without_scipy(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot_of(data_dir)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MinirnnError, match=r'read with SciPy: pip install "minirnn\[demo\]"'):
        robot.read(str(data_dir))
