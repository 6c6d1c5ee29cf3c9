"""`minirnn study` from the outside: a page for a run of each model, and one line for everything that cannot be."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minirnn.cli import main
from minirnn.commands.study import history
from minirnn.data.sources import series as csv
from minirnn.training import Run

from .conftest import Call

pytestmark = pytest.mark.filterwarnings("error")


def shown(page: Path) -> Any:
    """What a page holds: the JSON in it, arrays as NumPy's."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return _arrays(json.loads(found[1]))


def _arrays(value: Any) -> Any:
    if isinstance(value, list):
        return [_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    for kind in ("float32", "uint8"):
        if value.keys() == {"shape", kind}:
            return np.frombuffer(base64.b64decode(value[kind]), "<f4" if kind == "float32" else kind).reshape(value["shape"])
    return {name: _arrays(item) for name, item in value.items()}


def train(folder: Path, name: str, *settings: str, data: Path) -> Path:
    assert main(["train", name, "--data", str(data), "--out", str(folder), "--epochs", "1", "--quiet", "--set", *settings]) == 0
    return folder


def check_in_browser(page: Path) -> None:
    """The page opens without a word on the console, its slider reaches every loss step, and each has the loss that is in the data."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser (pip install 'minirnn[browser]')")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs Chromium: none of chromium, chromium-browser, google-chrome is on the path")
    outputs, troubles = shown(page)["outputs"], list[str]()
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        opened = browser.new_page()
        opened.on("console", lambda message: troubles.append(message.text))
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.goto(page.as_uri())
        slider = opened.get_by_role("slider")
        slider.focus()
        for step, loss in enumerate(outputs["losses"], 1):
            slider.press("ArrowRight")
            said = str(slider.get_attribute("aria-valuetext")).replace("−", "-")
            assert said.startswith(f"{step} of {len(outputs['labels'])}: {outputs['labels'][step - 1]}, loss ")
            assert float(said.rpartition(" ")[2]) == pytest.approx(float(loss), rel=6e-4)  # four digits
        browser.close()
    assert troubles == []


@pytest.fixture(scope="module")
def swings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "swings.csv"
    return csv.write(path, ("high", "low"), [rng.standard_normal((12, 2)) for _ in range(12)])


def test_a_translation(call: Call, trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = call("study", trained, "--input", "two and five", "--target", "deux et cinq", "--out", page)
    assert found.code == 0, found.err
    assert found.out.splitlines()[0] == f"{page}: two and five → deux et cinq"
    assert f"open it in a browser, it needs no network: {page.as_uri()}" in found.out
    example = shown(page)
    assert example["model"] == "seq2seq"
    assert example["run"] == str(trained)
    assert example["outputs"]["labels"] == ["deux", "et", "cinq", "<eos>"]
    task = Run.open(trained).task()
    exact = -task.model.log_likelihood(task.numbers_of([("two and five", "deux et cinq")]))[0]
    assert example["outputs"]["losses"].sum() == pytest.approx(exact, rel=1e-5)  # float32
    rows = Run.open(trained).read_metrics()
    assert [row["step"] for row in example["history"]["train"]] == [row["step"] for row in rows if "loss" in row]
    assert example["history"]["valid"][0]["bleu"] == next(row for row in rows if "valid" in row)["valid"]["bleu"]
    again = tmp_path / "again.html"
    call("study", trained, "--input", "two and five", "--target", "deux et cinq", "--out", again)
    assert again.read_bytes() == page.read_bytes()
    check_in_browser(page)


def test_the_page_lies_in_the_runs_folder(call: Call, trained: Path) -> None:
    found = call("study", trained)
    assert found.code == 0
    assert (trained / "study.html").is_file()
    (trained / "study.html").unlink()


@pytest.mark.parametrize("settings", [("model=lstm", "hidden=6"), ("hidden=6", "encoder_hidden=5"), ("model=srnn", "hidden=6")])
def test_a_series(call: Call, swings: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    run = train(tmp_path / "run", "ssm", *settings, data=swings)
    assert call("study", run, "--input", csv.write(tmp_path / "x.csv", ("a", "b"), [np.ones((9, 2))]), "--steps", 4).code == 0
    example = shown(run / "study.html")
    assert example["inputs"][0]["labels"] == ["5", "6", "7", "8"]
    assert "the last 4 of 9 frames" in example["note"]
    check_in_browser(run / "study.html")


@pytest.mark.parametrize("latent", [0, 2])
def test_a_sentence(call: Call, phrases: Path, tmp_path: Path, latent: int) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(line.split("\t")[0] for line in phrases.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
    run = train(tmp_path / "run", "vae", f"latent={latent}", "embedding=6", "encoder_hidden=5", "decoder_hidden=6", data=text)
    assert call("study", run, "--split", "train", "--index", 1).code == 0
    example = shown(run / "study.html")
    assert example["text"] == Run.open(run).task().text.train[1]
    assert call("study", run, "--input", "five").code == 0
    assert "--target is for models that say something" in call("study", run, "--input", "five", "--target", "six").complaint
    check_in_browser(run / "study.html")


def test_a_picture(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu", reason="needs sacrebleu (pip install 'minirnn[demo]')")
    from minirnn.data import images

    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,caption\n"]
    for k in range(20):
        images.write(folder / f"{k}.png", rng.integers(0, 256, (3, 32, 32), np.uint8))
        lines.append(f"{k}.png,a square of noise\n")
    (folder / "captions.txt").write_text("".join(lines), encoding="utf-8")
    run = train(tmp_path / "run", "captioner", "channels=4", "grid_features=6", "embedding=5", "hidden=8", data=folder)
    assert call("study", run, "--input", folder / "3.png").code == 0
    example = shown(run / "study.html")
    assert example["inputs"][0]["image"].dtype == np.uint8
    assert "folder; expected a picture" in call("study", run, "--input", folder).complaint
    check_in_browser(run / "study.html")


def test_a_kalman_run_is_told_what_to_use(call: Call, swings: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", "kalman", "iterations=2", data=swings)
    assert "no recurrent layer" in call("study", run).complaint


def test_a_model_that_cannot_be_looked_into(call: Call, tiny: ModuleType, tmp_path: Path) -> None:
    assert main(["train", "tiny", "--out", str(tmp_path / "run"), "--epochs", "1", "--quiet"]) == 0
    assert call("study", tmp_path / "run").complaint.endswith("is a run of tiny, which cannot be looked into")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--input", " "), "--input is empty: there is nothing to work on"),
        (("--input", "one", "--target", ""), "--target is empty"),
        (("--input", "\u200b"), "there is nothing to read in"),
        (("--input", "one", "--index", "0"), "--split and --index choose an example of the data: leave them out where --input is given"),
        (("--index", "5000"), "pairs, numbered from 0: there is no number 5000"),
        (("--index", "-1"), "expected a whole number, 0 or above, got '-1'"),
        (("--split", "best"), "invalid choice: 'best'"),
        (("--steps", "0"), "expected a whole number above 0, got '0'"),
        (("--input", "one and one", "--steps", "2"), "the input has 3 words, and a page takes 2: shorten it, or say --steps 3"),
        (("--out", "page.png"), "--out page.png: expected a file name that ends with .html"),
        (("--out", "nowhere/page.html"), "--out nowhere/page.html: there is no folder nowhere"),
    ],
)
def test_bad_usage(call: Call, trained: Path, arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in call("study", trained, *arguments).complaint


def test_no_run(call: Call, tmp_path: Path) -> None:
    assert "does not exist" in call("study", tmp_path / "nowhere").complaint


def test_history_takes_what_are_numbers() -> None:
    rows = [
        {"step": 25, "epoch": 0.1, "loss": 2.0, "norm": 1.0, "lr": 0.1, "per_second": 9.0},
        {"step": 25, "valid": {"loss": 1.5, "bleu": 3, "signature": "x"}, "best": True},
    ]
    assert history(rows) == {
        "train": [{"step": 25, "loss": 2.0, "norm": 1.0, "lr": 0.1}],
        "valid": [{"step": 25, "loss": 1.5, "bleu": 3}],
    }
    many = history([{"step": step, "loss": 1.0} for step in range(1, 2501)])["train"]
    assert [row["step"] for row in many] == list(range(1, 2501, 3))
