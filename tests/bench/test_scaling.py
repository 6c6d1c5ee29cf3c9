"""Each axis is varied alone, and the exponents are those of the laws that the times follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minirnn.bench import scaling
from minirnn.bench.memory_case import Case
from minirnn.bench.scaling import AXES, exponents, points
from minirnn.bench.timing import summary
from minirnn.cli import main

BASE = Case(32, 2, 3, 8, "float32", 1, 1)


@pytest.mark.parametrize("axis", ["T", "N", "H"])
def test_each_axis_is_varied_alone(axis: str) -> None:
    found = points(axis, BASE, 2)
    assert [value for value, _, _ in found] == AXES[axis]
    for value, case, threads in found:
        sizes = {name: getattr(case, name) for name in "TNDH"}
        assert sizes == {"T": 32, "N": 2, "D": 3, "H": 8, axis: value}
        assert threads == 2


def test_threads_share_one_large_shape() -> None:
    found = points("threads", BASE, 3)
    assert [(value, threads) for value, _, threads in found] == [(1, 1), (2, 2), (3, 3)]
    assert len({case for _, case, _ in found}) == 1
    assert (found[0][1].N, found[0][1].H, found[0][1].T) == (64, 256, 32)


def test_how_long_the_longest_sequence_is() -> None:
    assert (AXES["T"][0], AXES["T"][-1]) == (16, 16384)


def law(axis: str, seconds: Any) -> list[dict[str, Any]]:
    rows = []
    for value, case, threads in points(axis, BASE, 1):
        shape = {name: getattr(case, name) for name in "TNDH"}
        rows.append({"axis": axis, "value": value, "library": "minirnn", "shape": shape, "threads": threads})
        rows[-1]["summary"] = summary([seconds(value)])
    return rows


def test_known_exponents_are_found() -> None:
    """A constant cost hides the law where problems are small, and not in the larger half."""
    results = [*law("T", lambda T: 1e-6 * T), *law("N", lambda N: 1e-9 + 1e-3 * N**0.5), *law("H", lambda H: 1e-3 + 1e-3 * H**2)]
    found = {entry["axis"]: entry for entry in exponents(results)}
    assert found["T"]["half"].exponent == pytest.approx(1)
    assert found["N"]["all"].exponent == pytest.approx(0.5, abs=1e-4)
    assert found["H"]["half"].exponent == pytest.approx(2, abs=1e-3)
    assert found["T"]["operations"] == pytest.approx(1)
    assert 1.9 < found["H"]["operations"] < 2  # H (D + H)
    assert found["T"]["from"] == AXES["T"][5]


def test_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib")
    monkeypatch.setitem(scaling.AXES, "T", [2, 4])
    monkeypatch.setitem(scaling.AXES, "N", [1, 2, 3])
    picture = tmp_path / "scaling.png"
    asked = ["bench", "scaling", "--axis", "T", "N", "--shape", "3,2,3,4", "--rounds", "1", "--threads", "1", "--picture", str(picture)]
    assert main([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [(r["axis"], r["value"]) for r in result["results"]] == [("T", 2), ("T", 4), ("N", 1), ("N", 2), ("N", 3)]
    for r in result["results"]:
        assert r["difference"] < 1e-4
        assert r["gflops"] > 0
    assert [(entry["axis"], entry["library"]) for entry in result["exponents"]] == [("T", "minirnn"), ("N", "minirnn")]
    assert result["exponents"][0]["half"]["error"] is None  # of two points
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(asked[:-2]) == 0
    assert "exponent of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(["--axis", "D"], "invalid choice: 'D'"), (["--shape", "1,2,3"], "expected T,N,D,H"), (["--out", "/no/folder/x"], "cannot write")],
)
def test_what_cannot_be_measured(wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["bench", "scaling", *wrong])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert words in capsys.readouterr().err
