from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minirnn.bench import kalman
from minirnn.data.sources import robot


@pytest.fixture
def data(data_dir: Path) -> robot.Robot:
    pytest.importorskip("scipy", reason="MATLAB files are read with SciPy")
    if not (data_dir / robot.FILE.path).is_file():
        pytest.skip(f"needs {robot.FILE.path} in MINIRNN_DATA")
    return robot.read(str(data_dir))


def test_em_is_compared_before_it_is_timed(data: robot.Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pykalman", reason="the benchmark compares with pykalman")
    timings, strayed = kalman.em(data, iterations=2, rounds=1)
    assert [t.name for t in timings] == ["pykalman", "minirnn, numpy", "minirnn, numba"]
    assert strayed < 1e-9
    wrong = data._replace(log_likelihoods=data.log_likelihoods + 1e-3)
    with pytest.raises(RuntimeError, match=r"log-likelihoods differ from the published ones by 0.001; not timed"):
        kalman.em(wrong, iterations=1, rounds=1)
    correct = kalman.ours

    def nearly(given: robot.Robot, iterations: int, kernel: str) -> kalman.Learnt:
        learnt = correct(given, iterations, kernel)
        return kalman.Learnt(learnt.Q * (1 + 1e-5), learnt.R, learnt.log_likelihoods)

    monkeypatch.setattr(kalman, "ours", nearly)
    with pytest.raises(RuntimeError, match=r"minirnn, numpy: Q differs from pykalman's by .*; not timed"):
        kalman.em(data, iterations=1, rounds=1)


def test_forms_are_compared_before_they_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kalman.forms(30, rounds=1)
    assert [t.name for t in found["filter"]] == ["numba", "numpy", "square_root", "parallel"]
    assert all(t.least_ms <= t.median_ms <= t.most_ms for part in found.values() for t in part)
    correct = kalman.parallel.smooth
    monkeypatch.setattr(kalman.parallel, "smooth", lambda *given: correct(*given)._replace(mean=1e-7 + correct(*given).mean))
    with pytest.raises(RuntimeError, match="parallel, 30 steps: the smoothed mean differs by 1e-07; not timed"):
        kalman.forms(30, rounds=1)


def test_the_published_log_likelihoods(data: robot.Robot) -> None:
    found = kalman.ours(data, 50, "numba").log_likelihoods
    assert found is not None
    assert np.abs(found - data.log_likelihoods).max() < 1e-4
