from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from minirnn.data import ParallelText, all_sources, show, summarise, table

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
    assert summarise(replace(TEXT, test=[("\u200b", "\u00ad")])).sides[0].unknown == 0


def test_numbers() -> None:
    summary = summarise(TEXT, examples=1)
    english = summary.sides[0]
    assert summary.pairs == {"train": 4, "valid": 1, "test": 2}
    assert (english.lengths[0], english.lengths[2], english.lengths[4]) == (1, 2, 5)
    assert (english.words, english.vocabulary) == (4, 3)  # and, which is there once
    assert english.unknown == 1 / 4  # bird
    assert len(summary.examples) == 1
    assert summary.examples[0] in TEXT.test
    assert json.loads(json.dumps(summary.to_json()))["sides"][1]["language"] == "French"


def test_for_people() -> None:
    lines = str(summarise(TEXT))
    for part in (
        "pets: 4 train, 1 valid, 2 test pairs",
        "median 2",
        "4 words, 3 seen twice or more",
        "25.00%",
        "un oiseau",
        "nobody",
        "small",
    ):
        assert part in lines


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
