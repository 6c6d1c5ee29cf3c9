"""The study of posterior collapse, on a tiny setting: what it makes, and that a language model's line is a language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minirnn.study import collapse
from minirnn.training import DataArguments

SMALL = {"embedding": 8, "encoder_hidden": 8, "decoder_hidden": 16, "latent": 2, "batch_size": 16, "min_count": 1}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["red", "green", "blue", "white", "black"]
    lines = [" ".join([a] * n + [b] * m) for a in words for b in words for n in range(1, 5) for m in range(1, 5)]
    path = tmp_path_factory.mktemp("data") / "colours.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def results(file: Path) -> list[collapse.Result]:
    return collapse.run(DataArguments(str(file)), epochs=8, settings=SMALL, samples=10, quiet=True)


def test_every_variant_is_trained_as_long_and_of_one_size(results: list[collapse.Result]) -> None:
    assert [result.name for result in results] == list(collapse.VARIANTS)
    assert len({result.scores["updates"] for result in results}) == 1
    sizes = [result.scores["parameters"] for result in results[1:]]
    assert max(sizes) - min(sizes) <= 8  # whose turn it is, of encoder and decoder, is kept with the weights
    assert all(result.curve[-1][0] == result.scores["updates"] for result in results[1:])


def test_collapse_is_reproduced_and_cured(results: list[collapse.Result]) -> None:
    by_name = {result.name: result for result in results}
    assert by_name["VAE"].collapsed
    assert by_name["VAE"].scores["kl"] < collapse.COLLAPSED
    assert by_name["VAE"].scores["mutual_information"] < 0.1
    assert not by_name["free bits"].collapsed
    assert not by_name["language model"].collapsed  # there is nothing to collapse


def test_the_table_says_so(results: list[collapse.Result]) -> None:
    lines = collapse.table(results).splitlines()
    assert len(lines) == 1 + len(results)
    assert all(heading in lines[0] for heading in collapse.COLUMNS)
    assert lines[2].startswith("VAE ")
    assert lines[2].endswith("collapsed")
    for result, line in zip(results, lines[1:], strict=True):
        assert f"{result.scores['bound']:.2f}" in line


def test_the_same_seed_gives_the_same_table(file: Path) -> None:
    variants = {name: collapse.VARIANTS[name] for name in ("language model", "aggressive encoder")}
    again = [collapse.run(DataArguments(str(file)), epochs=1, settings=SMALL, quiet=True, variants=variants) for _ in range(2)]
    assert collapse.table(again[0]) == collapse.table(again[1])


def test_the_command(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    monkeypatch.setattr(collapse, "SIZE", SMALL)
    arguments = ["--data", str(file), "--epochs", "1", "--samples", "2", "--quiet", "--out", str(tmp_path / "out")]
    assert collapse.main([*arguments, "--set", "dropout=0.1"]) == 0
    shown = capsys.readouterr()
    assert "language model" in shown.out
    assert not shown.err
    assert (tmp_path / "out" / "collapse.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tmp_path / "out" / "collapse.json").read_text())
    assert [model["name"] for model in stored["models"]] == list(collapse.VARIANTS)
    assert all(model["settings"]["dropout"] == "0.1" for model in stored["models"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.txt"], "collapse: nowhere.txt: no such file or directory"),
        (["--data", "docstring"], "did you mean docstrings?"),
        (["--set", "hiden=3"], "--set hiden: no such setting"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert collapse.main([*arguments, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--epochs", "--samples", "--minutes"])
def test_numbers_are_checked(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        collapse.main([option, "-1"])
    assert stopped.value.code == 2
    assert f"{option} must be" in capsys.readouterr().err
