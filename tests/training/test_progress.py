"""What is shown of training: nothing of what is short, lines where there is no terminal."""

from __future__ import annotations

import io
import sys

import pytest

from minirnn.training import TrainingState, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STATE = TrainingState(step=30, epoch=1, batch=3, batches=6, elapsed=30.0)


def _train(display: progress.Progress) -> None:
    with display:
        for _ in range(3):
            display.update(STATE, 2.5, 0.75, 100, 90.0)
        display.validated(STATE, {"loss": 2.25, "bleu": 31.0}, True)


def test_what_is_over_at_once_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        _train(progress.make("tokens"))
        assert stream.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["file", "terminal"])
def test_loss_gradient_speed_time_left_and_scores_are_shown(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    _train(progress.make("words"))
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    for part in ("epoch  1.50", "loss 2.500", "gradient 0.75", "words/s", "1:30 left", "bleu 31", "best so far"):
        assert part in shown, part


def test_a_long_validation_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with progress.make("words") as display:
        display.update(STATE, 2.5, 0.75, 100, 90.0)
        display.validating(STATE)
    assert "validating ..." in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_the_quiet_one_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    _train(progress.make("tokens", quiet=True))
    assert capsys.readouterr() == ("", "")
