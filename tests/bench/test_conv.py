from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minirnn.bench import conv
from minirnn.bench.conv import Result, cases, check, main

SMALL = ((3, 4, 3, 2, 1), (4, 16, 5, 1, 2))


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "_torch_version", lambda: None)


def test_everything_agrees_with_pytorch() -> None:
    pytest.importorskip("torch")
    for case in cases(2, 8, SMALL):
        assert "PyTorch" in case.against
        difference = check(case)
        assert difference is not None
        assert difference <= case.tolerance


@pytest.mark.usefixtures("no_torch")
def test_without_pytorch_convolutions_are_checked_by_their_definition() -> None:
    *convolutions, encoder = cases(2, 8, SMALL)
    for case in convolutions:
        assert list(case.against) == ["the definition"]
        assert check(case) is not None
    assert check(encoder) is None


@pytest.mark.usefixtures("no_torch")
def test_a_wrong_number_anywhere_is_caught() -> None:
    """Output, gradient of the input, of the weight or of the bias: times 1.001, or moved by a place."""
    for case in cases(2, 8, SMALL)[:-1]:
        right = case.checked()
        for k in range(len(right)):
            for wrong in (1.001 * right[k], np.roll(right[k], 1, -1)):
                planted = [wrong if j == k else array for j, array in enumerate(right)]
                with pytest.raises(RuntimeError, match=r"differs from the definition by .*; not timed"):
                    check(replace(case, checked=lambda planted=planted: planted))
        with pytest.raises(RuntimeError, match="differs"):
            check(replace(case, checked=lambda right=right: [np.nan * array for array in right]))


def test_ratios_are_of_one_turn() -> None:
    result = Result("x", None, [2.0, 9.0, 8.0], [1.0, 3.0, 2.0], None)
    assert result.over(result.floor_ms) == (3, 2, 4)


@pytest.mark.usefixtures("no_torch")
def test_reports(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv.cases, "__defaults__", (SMALL,))
    options = ["--batch", "2", "--picture-size", "8", "--rounds", "3", "--return-memory"]
    assert main(options) == 0
    assert "no PyTorch here" in capsys.readouterr().out
    assert main([*options, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["torch"] is None
    assert [len(result["minirnn_ms"]) for result in report["results"]] == [3, 3, 3]
    assert main(["--picture-size", "4"]) == 2
    assert "--picture-size must be at least 8, got 4" in capsys.readouterr().err
