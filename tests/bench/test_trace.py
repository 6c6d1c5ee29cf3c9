"""The benchmark of the trace: what it measures, what it says, and that it times nothing that is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minirnn.bench import timing, trace
from minirnn.kernels import load


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FILL", 0.0)
    monkeypatch.setattr(trace, "turn", lambda run: timing.turn(run, fill=1e-4))
    monkeypatch.setattr(trace, "keep_freed", lambda: True)  # of the process that tests


@pytest.mark.parametrize("cell", trace.LAYERS)
def test_it_times_both_in_turns(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["--cell", cell, "--shapes", "3,2,4,5", "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"T": 3, "N": 2, "D": 4, "H": 5}
    assert found["cell"] == cell
    for name in ("off", "on", "ratio"):
        assert 0 < found[name]["least"] <= found[name]["median"] <= found[name]["most"]


def test_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["--shapes", "3,2,4,5", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("lstm T,N,D,H = 3,2,4,5: ")
    assert "ms without a trace" in said
    for wrong, why in (("3,2,4", "a shape is T,N,D,H, four numbers, got '3,2,4'"), ("3,2,0,5", "must be 1 or more, got '3,2,0,5'")):
        with pytest.raises(SystemExit):
            trace.main(["--shapes", wrong])
        assert why in capsys.readouterr().err


def test_gradients_that_are_not_the_same_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = load("lstm", "numba")
    right = kernel.backward

    def wrong(*arrays: Any, taps: Any = None, **options: Any) -> Any:
        grads = right(*arrays, taps=taps, **options)
        return grads if taps is None else grads._replace(dw_hh=np.nextafter(grads.dw_hh, 1))

    monkeypatch.setattr(kernel, "backward", wrong)
    assert trace.main(["--shapes", "3,2,4,5", "--rounds", "1"]) == 1
    assert "lstm, (3, 2, 4, 5): the gradients are not the same with a trace; not timed" in capsys.readouterr().err
