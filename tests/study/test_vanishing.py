"""Vanishing and exploding gradients side by side: what the layers are, what the table says, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minirnn.study import vanishing

LN10 = np.log(10)


def test_the_gain_is_the_norm_of_every_gates_weights() -> None:
    for name, kind in vanishing.KINDS.items():
        layer = vanishing.with_gain(kind, 6, 1.5, 0)
        for W in layer.weight_hh_l0.numpy().reshape(-1, 6, 6):
            np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), 1.5, rtol=1e-6, err_msg=name)


def test_small_gains_vanish_and_large_ones_explode() -> None:
    found = vanishing.run((0.5, 4.0), hidden=32, steps=40, sequences=3)
    small, large = found["RNN"]
    assert small.log_bound is not None
    np.testing.assert_allclose(small.log_bound[-1], 40 * np.log(0.5), rtol=1e-6)
    assert (small.log_norms[:, -1] <= small.log_bound[-1]).all()
    assert np.median(large.log_norms[:, -1]) > 0
    for rows in found.values():
        assert rows[0].log_norms.shape == (3, 41)
    said = vanishing.table(found, (0.5, 4.0))
    assert f"{np.median(small.log_norms, 0)[40] / LN10:.1f}" in said
    assert "t = 40" in said


def test_the_command_draws_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-W", "error", "-m", "minirnn.study.vanishing", "--steps", "5", "--hidden", "3", "--out", "a.png"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--gains", "1e40"], "--gains must be above 0 and at most 1e+30"),
    ):
        with pytest.raises(SystemExit) as ended:
            vanishing.main(arguments)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
