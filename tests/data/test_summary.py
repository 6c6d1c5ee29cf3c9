from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minirnn.data import CaptionedPictures, ParallelText, Sentences, Series, all_sources, show, summarise, table

TEXT = ParallelText(
    name="pets",
    languages=("English", "French"),
    train=[("a cat", "un chat"), ("a dog", "un chien"), ("a cat and a dog", "un chat et un chien"), ("a", "un")],
    valid=[("a dog", "un chien")],
    test=[("a cat", "un chat"), ("a bird", "un oiseau")],
    attribution="nobody",
    note="small",
)


def test_a_test_without_any_word() -> None:
    assert summarise(replace(TEXT, test=[("\u200b", "\u00ad")])).texts["English"].unknown == 0


def test_numbers() -> None:
    summary = summarise(TEXT, examples=1)
    english = summary.texts["English"]
    assert summary.sizes == {"train": 4, "valid": 1, "test": 2}
    assert (english.lengths[0], english.lengths[2], english.lengths[4]) == (1, 2, 5)
    assert (english.words, english.vocabulary) == (4, 3)  # and, which is there once
    assert english.unknown == 1 / 4  # bird
    assert len(summary.examples) == 1
    assert tuple(summary.examples[0]) in TEXT.test
    assert list(json.loads(json.dumps(summary.to_json()))["texts"]) == ["English", "French"]


def test_for_people() -> None:
    lines = str(summarise(TEXT))
    for part in (
        "pets: 4 train, 1 valid, 2 test sentence pairs",
        "median 2",
        "4 words, 3 seen twice or more",
        "25.00%",
        "un oiseau",
        "nobody",
        "small",
    ):
        assert part in lines


def test_sentences() -> None:
    summary = summarise(Sentences("pets", ["a cat", "a dog"], ["a cat"], ["a bird"], "nobody"))
    assert summary.sizes == {"train": 2, "valid": 1, "test": 1}
    assert summary.texts["sentences"].unknown == 1 / 2
    assert "pets: 2 train, 1 valid, 1 test sentences" in str(summary)


class Squares:
    """Two white pictures, each with two captions."""

    def __len__(self) -> int:
        return 2

    def images(self, numbers: Sequence[int]) -> np.ndarray:
        return np.full((len(numbers), 3, 4, 4), 255, np.uint8)

    def captions(self, number: int) -> tuple[str, ...]:
        return (f"square {number}", "a square")


def test_pictures() -> None:
    summary = summarise(CaptionedPictures("squares", Squares(), Squares(), Squares(), "nobody"), examples=1)
    (example,) = summary.examples
    assert example[0] in ("picture 0", "picture 1")
    assert example[2] == "a square"
    assert summary.texts["captions"].words == 4
    assert "2 train, 2 valid, 2 test pictures with captions" in str(summary)


def test_series() -> None:
    x = np.array([[1.0, 10.0], [3.0, np.nan]])
    shown = str(summarise(Series("x", [x], [x], [x[:1]], "real", ("left", "right"), "nobody")))
    assert "steps: 2 to 2, half of them 2 to 2, median 2" in shown
    assert "left: mean 2, deviation 1, 0.0% missing" in shown
    assert "right: mean 10, deviation 0, 50.0% missing" in shown
    keys = np.eye(3)[[0, 2]]
    assert "[0]; [2]" in str(summarise(Series("keys", [keys], [keys], [keys], "binary", ("a", "b", "c"), "nobody")))


def test_what_is_no_data_set() -> None:
    with pytest.raises(TypeError, match="summarise: expected a data set, got list"):
        summarise([])


def test_a_file_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"word {i}\tmot {i}\n" for i in range(20)), encoding="utf-8")
    assert show(str(tmp_path / "pairs.tsv"), examples=3).name == "pairs.tsv"


def test_importing_the_data_loads_no_library_of_the_extras() -> None:
    code = "import sys, minirnn.data; print({'babel', 'emoji', 'sentencepiece', 'rich', 'sacrebleu', 'urllib.request'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    out = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_the_table_names_every_source() -> None:
    lines = table(all_sources())
    for entry in all_sources():
        assert entry.name in lines
        assert entry.licence in lines
