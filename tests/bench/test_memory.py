"""What is counted is what is alive; the ways keep what is derived on paper; nothing is measured that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.bench import memory_minirnn
from minirnn.bench.libraries import torch_
from minirnn.bench.memory import MODULES, WAYS, agreement, compare, fitted, on_paper, others
from minirnn.bench.memory_case import PARAMETERS, Case
from minirnn.bench.memory_minirnn import buffers, keep, make
from minirnn.bench.worker import Worker
from minirnn.cli import main
from minirnn.errors import MinirnnError
from minirnn.ops import linear, tanh
from minirnn.tensor import Tensor

CASE = Case(T=40, N=3, D=5, H=16, dtype="float64", segment=6, chunk=10)
SIZE = 8


def gradients(case: Case, way: str) -> Mapping[str, Any]:
    return {name: t.numpy() for name, t in make(case, way)[1](lambda outputs: None).items()}


def test_a_small_graph_by_hand() -> None:
    x, w = Tensor(np.ones((4, 3)), requires_grad=True), Tensor(np.ones((5, 3)), requires_grad=True)
    y = tanh(linear(x, w) * 2)  # keeps x and w, the product's output which is multiplied, that product's, and y itself
    alive = buffers([y])
    assert alive.total() == SIZE * (4 * 3 + 5 * 3 + 1 + 3 * 4 * 5)
    assert buffers([y], [x.data, w.data]).total() == SIZE * (1 + 3 * 4 * 5)
    assert buffers([y, y, [y.data]]).total() == alive.total()  # each once


def test_a_planted_leak_is_counted() -> None:
    y = tanh(Tensor(np.ones(7), requires_grad=True))
    before = buffers([y]).total()
    y.creator.extra = [np.ones(100)[::2]]  # type: ignore[union-attr]
    assert buffers([y]).total() == before + 100 * SIZE  # a part of an array keeps all of it
    y.creator.closed = closing_over(np.ones(10))  # type: ignore[union-attr]
    assert buffers([y]).total() == before + 110 * SIZE


def closing_over(array: Any) -> Any:
    return lambda: array


def test_what_is_alive_outside_the_graph_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    described = 16 * (CASE.T + CASE.N)  # bytes of the integers that describe a batch, which a layer may remember for the next one
    found = keep(asdict(CASE), "store")
    assert found["traced"] == pytest.approx(found["kept"], abs=described)
    hidden: list[Any] = []
    layer = memory_minirnn.nn.LSTM.forward

    def leaking(self: Any, *arguments: Any) -> Any:
        hidden.append(np.zeros(1000))
        return layer(self, *arguments)

    monkeypatch.setattr(memory_minirnn.nn.LSTM, "forward", leaking)
    hidden_then = keep(asdict(CASE), "store")
    assert hidden_then["kept"] == found["kept"]
    assert hidden_then["traced"] == pytest.approx(found["kept"] + 1000 * SIZE, abs=described)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_is_what_is_derived(way: str) -> None:
    """Up to the states at both ends of each piece, (N, H) each, and the integers that describe a batch."""
    states = 8 * CASE.N * CASE.H * SIZE
    ends = states * (len(CASE.sizes(CASE.segment)) if way == "checkpoint" else 1)
    found = keep(asdict(CASE), way)["kept"]
    derived = on_paper("minirnn", way, CASE)
    assert derived is not None
    assert derived - states <= found <= derived + ends + 16 * CASE.T * CASE.N


def test_who_keeps_less() -> None:
    kept = {way: keep(asdict(CASE), way)["kept"] for way in WAYS}
    assert kept["store"] > kept["recompute-half"] > kept["recompute"] > kept["checkpoint"]
    assert kept["store"] > kept["truncated"]


def test_truncated_keeps_one_chunk_however_long_the_sequence() -> None:
    longer = replace(CASE, T=4 * CASE.T)
    assert keep(asdict(longer), "truncated")["kept"] == keep(asdict(CASE), "truncated")["kept"]
    assert keep(asdict(longer), "store")["kept"] > 3.9 * keep(asdict(CASE), "store")["kept"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradients_are_those_of_store(dtype: str) -> None:
    case = replace(CASE, dtype=dtype)
    whole = gradients(case, "numpy")
    assert list(whole) == ["x", *PARAMETERS]
    for way in ("store", "recompute-half", "recompute", "checkpoint"):
        assert "difference" in compare("minirnn", way, case, gradients(case, way), whole)
    cut = compare("minirnn", "truncated", case, gradients(case, "truncated"), whole)
    assert 0 < cut["cosine"] < 1
    uncut = replace(case, chunk=case.T)
    assert compare("minirnn", "truncated", uncut, gradients(uncut, "truncated"), whole)["cosine"] == pytest.approx(1, abs=1e-6)


def test_a_wrong_gradient_is_not_measured() -> None:
    whole = gradients(CASE, "store")
    assert agreement("x", CASE, whole, whole) == 0
    for name, right in whole.items():
        for wrong in (1.001 * right, np.roll(right, 1, 0), np.full_like(right, np.nan)):
            with pytest.raises(MinirnnError, match=r"minirnn checkpoint: gradients differ by .*; not measured"):
                compare("minirnn", "checkpoint", CASE, {**whole, name: wrong}, whole)


def test_the_fit_of_what_grows_with_the_steps() -> None:
    rows = [
        {"library": "minirnn", "way": "store", "T": T, "kept_bytes": 24 * T * 6 + 1000, "peak_bytes": None, "on_paper_bytes": 24 * T * 6}
        for T in (10, 20, 50)
    ]
    (fit,) = fitted(rows, N=2, H=3)
    assert fit["kept_bytes_per_cell"] == pytest.approx(24)
    assert fit["on_paper_bytes_per_cell"] == pytest.approx(24)
    assert fit["peak_bytes_per_cell"] is None


def test_pytorch_gives_the_same_gradients_and_its_workspace_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    case = replace(CASE, dtype="float32")
    whole = gradients(case, "store")
    output = case.T * case.N * case.H * 4
    with Worker(MODULES["torch"], 1) as torch:
        for way in ("store", "checkpoint"):
            torch.call("gradients", case=asdict(case), way=way, file=str(tmp_path / "found.npz"))
            with np.load(tmp_path / "found.npz") as found:
                assert "difference" in compare("torch", way, case, found, whole)
        kept = {way: torch.call("keep", case=asdict(case), way=way)["kept"] for way in ("store", "checkpoint")}
    assert kept["store"] > 5 * output  # the gates and c at the least
    assert kept["store"] > kept["checkpoint"] >= output


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_, "why_not", lambda: "PyTorch is not installed")
    assert others(["torch"]) == ([], {"PyTorch": "PyTorch is not installed"})
    assert others([]) == ([], {})


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib")
    out, picture = tmp_path / "memory.json", tmp_path / "memory.png"
    asked = ["bench", "memory", "--steps", "4", "8", "--shape", "2,3,5", "--rounds", "1", "--threads", "1", "--way", "truncated"]
    assert main([*asked, "--json", "--out", str(out), "--picture", str(picture)]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert json.loads(out.read_text()).keys() == result.keys()
    assert [(r["way"], r["T"]) for r in result["results"]] == [("store", 4), ("truncated", 4), ("store", 8), ("truncated", 8)]
    for r in result["results"]:
        assert r["kept_bytes"] > 0
        assert r["peak_bytes"] is None or r["peak_bytes"] >= 0
        assert len(r["seconds"]) == 1
    assert {fit["way"] for fit in result["fits"]} == {"store", "truncated"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["bench", "memory", "--steps", "4", "--shape", "2,3,5", "--rounds", "1", "--threads", "1", "--way", "store", "--no-peak"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "LSTM, N=2 sequences, D=3 features, H=5 hidden units, float32" in said
    assert "equal to 0e+00" in said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--steps", "0"], "expected a whole number above 0"),
        (["--shape", "2,3"], "expected N,D,H, three whole numbers above 0, got '2,3'"),
        (["--way", "forget"], "invalid choice: 'forget'"),
        (["--out", "/no/such/folder/x.json"], "cannot write /no/such/folder/x.json"),
    ],
)
def test_what_cannot_be_measured(wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["bench", "memory", *wrong])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
