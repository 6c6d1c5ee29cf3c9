from __future__ import annotations

import json
from pathlib import Path

import pytest

from minirnn.bench.first_call import MEASURED, measure
from minirnn.cli import main


def test_it_says_that_it_compiles_once_and_when_warm_nothing(tmp_path: Path) -> None:
    seconds, said = measure((2, 2, 3, 4), str(tmp_path))
    assert seconds.keys() == MEASURED.keys()
    assert said.startswith("minirnn: compiling CPU kernels for this machine")
    assert said.count("minirnn:") == 1
    assert measure((2, 2, 3, 4), str(tmp_path))[1] == ""


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["bench", "first-call", "--shape", "2,2,3,4", "--rounds", "1", "--no-cold"]
    assert main([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["warm"].keys() == MEASURED.keys()
    assert result["cold"] is None
    assert result["warm"]["first"]["median"] >= result["warm"]["numba"]["median"]
    assert main(asked) == 0
    assert "first call" in capsys.readouterr().out


def test_what_cannot_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "first-call", "--out", "/no/folder/x.json"]) == 2
    assert "cannot write /no/folder/x.json" in capsys.readouterr().err
