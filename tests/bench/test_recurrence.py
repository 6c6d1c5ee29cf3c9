"""`minirnn bench lstm|gru|rnn` from the command line, on shapes so small that no time means anything: none is looked at."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minirnn.bench import recurrence, recurrence_report
from minirnn.bench.cases import Case
from minirnn.bench.libraries import torch_
from minirnn.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_kernel.py"
TINY = ("--shape", "5,3,4,6", "--rounds", "2", "--threads", "1")

Said = tuple[int, str, str]


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    capsys.readouterr()
    try:
        code = main(["bench", *map(str, arguments)])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_every_kernel_is_validated_timed_and_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, picture = tmp_path / "found.json", tmp_path / "found.png"
    drawn = ("--picture", picture) if importlib.util.find_spec("matplotlib") else ()
    code, shown, _ = bench(capsys, "lstm", *TINY, "--ragged", "both", "--kernel", "numpy", "unrolled", EXAMPLE, "--out", out, *drawn)
    assert code == 0
    found = json.loads(out.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [case["name"] for case in found["cases"]] == ["lstm (5, 3, 4, 6)", "lstm (5, 3, 4, 6), ragged"]
    assert found["machine"]["packages"]["numpy"]
    assert all(math.isfinite(number) for number in numbers(found))
    for case in found["cases"]:
        assert case["flops"]["both"] == 3 * case["flops"]["forward"] == 3 * sum(case["lengths"]) * 2 * 24 * (4 + 6)
        names = {(one["label"], one["pass"]) for one in case["results"]}
        assert names == {(name, p) for name in ("numpy", "unrolled", "my_kernel", "products (NumPy)") for p in ("forward", "both")}
        for one in case["results"]:
            assert len(one["seconds"]) == 2
            assert one["summary"]["least"] <= one["summary"]["median"] <= one["summary"]["most"]
            assert one["gflops"] == pytest.approx(case["flops"][one["pass"]] / one["summary"]["median"] / 1e9)
            if one["implementation"] != "products":
                assert one["right"]
                assert 0 <= one["difference"] <= one["allowed"]
    assert "both: forward and backward" in shown
    assert "% of floor" in shown
    if drawn:
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = bench(capsys, "gru", *TINY, "--kernel", "numpy", "--pass", "forward", "--json", "--no-memory", "--dtype", "float64")
    assert code == 0
    (case,) = json.loads(shown)["cases"]
    assert {one["pass"] for one in case["results"]} == {"forward"}
    assert {one["peak_bytes"] for one in case["results"]} == {None}
    assert case["case"]["dtype"] == "float64"


def test_layers_and_directions(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--layers", 2, "--bidirectional", "--ragged", "yes", "--kernel", "numpy", "--no-memory", "--pass", "both")
    code, shown, _ = bench(capsys, "rnn", *TINY, *options)
    assert code == 0
    assert "rnn (5, 3, 4, 6), 2 layers, bidirectional, ragged, float32: ragged, 1 to 5 steps" in shown


def test_pytorch_takes_its_turns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    code, shown, _ = bench(capsys, "lstm", *TINY, "--ragged", "yes", "--kernel", "numpy", "--against", "torch", "--json")
    assert code == 0
    found = json.loads(shown)
    assert found["machine"]["packages"]["torch"]
    (case,) = found["cases"]
    assert {one["label"] for one in case["results"]} == {"numpy", "PyTorch", "products (NumPy)", "products (PyTorch)"}
    for one in case["results"]:
        assert bool(one["times_of_others_over_this"]) == (one["label"] == "numpy")
    both = next(one for one in case["results"] if (one["label"], one["pass"]) == ("numpy", "both"))
    over = both["times_of_others_over_this"]["PyTorch"]["summary"]
    assert over["least"] <= over["lower"] <= over["median"] <= over["upper"] <= over["most"]


def test_where_pytorch_is_missing_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_, "why_not", lambda: "PyTorch is not installed")
    code, shown, _ = bench(capsys, "lstm", *TINY, "--kernel", "numpy", "--against", "torch", "--no-memory", "--pass", "forward")
    assert code == 0
    assert "not compared with PyTorch: PyTorch is not installed" in shown
    assert "time / this" not in shown


def test_a_wrong_kernel_of_the_users_is_not_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(EXAMPLE.read_text(encoding="utf-8").replace("dz.T @ tape.before[0]", "dz.T @ tape.h"), encoding="utf-8")
    code, shown, said = bench(capsys, "lstm", *TINY, "--kernel", wrong)
    assert code == 1
    assert "GFLOP/s" not in shown
    assert "kernel wrong (" in said
    assert "dw_hh differs from the float64 reference by" in said
    assert "Traceback" not in said


def test_a_kernel_that_is_wrong_at_a_shape_is_not_timed_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """All of the small batches are right, and a longer one is not."""
    wrong = tmp_path / "wrong.py"
    text = EXAMPLE.read_text(encoding="utf-8").replace("    return Grads(dz,", "    dz[28:] *= 1.001\n    return Grads(dz,")
    wrong.write_text(text, encoding="utf-8")
    code, shown, said = bench(capsys, "lstm", "--shape", "12,4,5,6", "--rounds", 1, "--kernel", "numpy", wrong, "--no-memory")
    assert code == 1
    assert "wrong at lstm (12, 4, 5, 6): gradient of input differs from the float64 reference by" in said
    assert "first at time step 11, sequence 0" in said
    rows = {line.split()[0]: line for line in shown.splitlines() if line.startswith("  ")}
    assert "WRONG, not timed" in rows["wrong"]
    assert "WRONG" not in rows["numpy"]


def test_a_kernel_that_ends_its_process_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fatal = tmp_path / "fatal.py"
    fatal.write_text("import os\n" + EXAMPLE.read_text(encoding="utf-8").replace("zero = np", "os.abort(); zero = np"), encoding="utf-8")
    code, _, said = bench(capsys, "lstm", *TINY, "--kernel", fatal)
    assert code == 2
    assert "its process ended in use, killed by SIGABRT" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--shape", "1,2,3"), "expected T,N,D,H"),
        (("--shape", "1,2,3,0"), "expected T,N,D,H"),
        (("--kernel", "magic"), "kernel 'magic' cannot run here; can run: "),
        (("--kernel", "none.py"), "--kernel none.py: there is no such file"),
        (("--against", "theano"), "invalid choice: 'theano'"),
        (("--rounds", "0"), "expected a whole number above 0"),
        (("--ragged", "perhaps"), "invalid choice: 'perhaps'"),
        (("--out", "no/such/folder/a.json"), "no such folder"),
        (("--picture", "no/such/folder/a.png"), "no such folder"),
        (("--layers", "2", "--grid", "steps"), "invalid choice: 'steps'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str) -> None:
    code, _, said = bench(capsys, "lstm", *arguments)
    assert code == 2
    assert complaint in said.splitlines()[-1]
    assert "Traceback" not in said


def test_ratios_are_against_the_faster_of_their_implementations() -> None:
    case = Case("lstm", 3, 1, 2, 2, stepwise=True)
    entries = [
        {"library": library, "implementation": name, "right": True, "differences": []}
        for library in ("minirnn", "PyTorch")
        for name in ("cell", "layer")
    ]
    seconds = {("minirnn", "cell"): [1.0, 2.0, 1.0], ("minirnn", "layer"): [4.0, 4.0, 4.0]}
    seconds |= {("PyTorch", "cell"): [8.0, 8.0, 8.0], ("PyTorch", "layer"): [2.0, 2.0, 3.0]}
    seconds |= {(library, "products"): [0.5, 0.5, 0.5] for library in ("minirnn", "PyTorch")}
    times = {recurrence_report.key(*one, "forward"): taken for one, taken in seconds.items()}
    found = recurrence_report.gather(case, ["forward"], entries, times)
    over = {one["label"]: one["times_of_others_over_this"] for one in found["results"]}
    assert over["minirnn cell"]["PyTorch"]["implementation"] == "layer"
    assert over["minirnn cell"]["PyTorch"]["summary"] == (2.0, 1.5, 2.5, 1.0, 3.0)
    assert over["PyTorch cell"] == {}
    percent = {one["label"]: one["percent_of_floor"].median for one in found["results"]}
    assert percent == {
        "minirnn cell": 50,
        "minirnn layer": 12.5,
        "PyTorch cell": 6.25,
        "PyTorch layer": 25,
        "products (NumPy)": 100,
        "products (PyTorch)": 100,
    }


def test_the_targets_are_all_there() -> None:
    names = [str(case) for case in recurrence.GRIDS["targets"]("lstm", "float32")]
    assert len(names) == 10
    assert "lstm (100, 64, 256, 256), ragged" in names
    assert "lstm (50, 32, 256, 256), 2 layers, bidirectional" in names
    assert "lstm (100, 1, 256, 256), step by step" in names
