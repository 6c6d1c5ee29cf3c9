"""`minirnn caption`, `sample`, `reconstruct`, `interpolate` and `forecast` from the outside, on a task whose answers are known."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minirnn.errors import MinirnnError
from minirnn.training import registry
from minirnn.training.verbs import Caption, Drawn, Forecast

from .conftest import Call


class Answers:
    """Every verb, answered with what it was asked."""

    def caption(self, paths: Sequence[Path], *, beam: int = 1, length_penalty: float = 1.0) -> list[Caption]:
        if not all(path.exists() for path in paths):
            raise MinirnnError(f"{paths[0]}: no such file")
        words = ["beam", str(beam), "penalty", f"{length_penalty:g}"]
        attention = np.full((len(words) + 1, 2, 2), 0.25)
        return [Caption(" ".join(words), words, -1.5, attention, np.zeros((3, 8, 8), np.uint8)) for _ in paths]

    def sample(self, count: int, rng: np.random.Generator, folder: Path, *, temperature: float = 1.0, length: int | None = None) -> Drawn:
        (folder / "sample.txt").write_text("drawn")
        return Drawn([f"{rng.integers(1000)} {temperature:g} {length}" for _ in range(count)], [folder / "sample.txt"])

    def reconstruct(self, texts: Sequence[str]) -> list[str]:
        if any("?" in text for text in texts):
            raise MinirnnError("a question cannot be reconstructed")
        return [text.upper() for text in texts]

    def interpolate(self, first: str, second: str, steps: int) -> list[str]:
        return [first, *["..."] * (steps - 2), second]

    def forecast(self, steps: int, folder: Path, rng: np.random.Generator, *, path: Path | None = None, level: float = 0.9) -> Forecast:
        return Forecast({"step": [float(k) for k in range(steps)], "upper": [level] * steps}, [folder / "forecast.png"])


@pytest.fixture(scope="module")
def runs(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folder of a run that has every verb, and of one that has none."""
    from minirnn.cli import main

    if "answers" not in registry.names():
        registry.register(type("AnswersTask", (Answers, tiny.TinyTask), {"name": "answers"}))
    folder = tmp_path_factory.mktemp("runs")
    for name in ("answers", "tiny"):
        assert main(["train", name, "--out", str(folder / name), "--epochs", "1", "--quiet"]) == 0
    return SimpleNamespace(able=folder / "answers", unable=folder / "tiny")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("caption", "RUN", "x.png"), "caption pictures"),
        (("sample", "RUN"), "draw samples"),
        (("reconstruct", "RUN", "a"), "reconstruct texts"),
        (("interpolate", "RUN", "a", "b"), "interpolate texts"),
        (("forecast", "RUN"), "forecast series"),
    ],
)
def test_a_model_without_the_verb_says_so(call: Call, runs: SimpleNamespace, arguments: tuple[str, ...], what: str) -> None:
    complaint = call(*(runs.unable if word == "RUN" else word for word in arguments)).complaint
    assert complaint.endswith(f"is a run of tiny, which does not {what}")


def test_caption(call: Call, runs: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs Matplotlib (pip install 'minirnn[demo]')")
    picture = tmp_path / "x.png"
    picture.touch()
    assert call("caption", runs.able, picture, picture).out == "beam 1 penalty 1\n" * 2
    found = call("caption", runs.able, picture, picture, "--beam", 3, "--json", "--show-attention", tmp_path / "look.png")
    assert [json.loads(line)["caption"] for line in found.out.splitlines()] == ["beam 3 penalty 1"] * 2
    for name in ("look.png", "look-2.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "absent.png: no such file" in call("caption", runs.able, tmp_path / "absent.png").complaint
    assert "expected a file name that ends with .png" in call("caption", runs.able, picture, "--show-attention", "x.jpg").complaint


def test_sample(call: Call, runs: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    drawn = json.loads(call("sample", runs.able, "-n", 3, "--temperature", 0.5, "--length", 7, "--out", out, "--json").out)
    assert len(drawn["samples"]) == 3
    assert drawn["samples"][0].endswith(" 0.5 7")
    assert drawn["files"] == [str(out / "sample.txt")]
    again = call("sample", runs.able, "-n", 3, "--out", out).out
    assert again == call("sample", runs.able, "-n", 3, "--out", out).out
    assert again != call("sample", runs.able, "-n", 3, "--out", out, "--seed", 1).out


def test_reconstruct(call: Call, runs: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("reconstruct", runs.able, "one", "two").out == "ONE\nTWO\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"three\n")))
    assert json.loads(call("reconstruct", runs.able, "-", "--json").out) == {"text": "three", "reconstruction": "THREE"}
    assert "text 2: a question cannot be reconstructed" in call("reconstruct", runs.able, "one", "two?").err
    assert "text 1 is empty" in call("reconstruct", runs.able, " ").complaint


def test_interpolate(call: Call, runs: SimpleNamespace) -> None:
    assert call("interpolate", runs.able, "a", "b", "--steps", 3).out == "a\n...\nb\n"
    assert json.loads(call("interpolate", runs.able, "a", "b", "--json").out)["texts"] == ["a", *["..."] * 5, "b"]
    assert "text B is empty" in call("interpolate", runs.able, "a", "").complaint


def test_forecast(call: Call, runs: SimpleNamespace) -> None:
    found = call("forecast", runs.able, "--steps", 2, "--level", 0.5)
    assert found.out == "step\tupper\n0\t0.5\n1\t0.5\n"
    assert "forecast.png" in found.err
    assert json.loads(call("forecast", runs.able, "--steps", 2, "--json").out)["columns"] == {"step": [0.0, 1.0], "upper": [0.9, 0.9]}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sample", "RUN", "--temperature", "0"), "expected a number above 0, got '0'"),
        (("forecast", "RUN", "--level", "1"), "expected a number between 0 and 1, got '1'"),
        (("forecast", "RUN", "--steps", "x"), "expected a whole number above 0, got 'x'"),
    ],
)
def test_bad_numbers(call: Call, runs: SimpleNamespace, arguments: tuple[Any, ...], complaint: str) -> None:
    assert complaint in call(*(runs.able if word == "RUN" else word for word in arguments)).complaint
