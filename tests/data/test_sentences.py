"""Sentences: of text files, of docstrings, of the English side of pairs, and of captions."""

from __future__ import annotations

import ast
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minirnn.data import source
from minirnn.data.kinds import CaptionedPictures, Sentences
from minirnn.data.sources import docstrings
from minirnn.data.sources.sentences import captions, cut, parse, split
from minirnn.errors import MinirnnError

LINES = [f"sentence number {i}" for i in range(100)]


def written(tmp_path: Path, content: bytes | str, name: str = "text.txt") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_lines(packed: bool, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + "\r\n".join(LINES).encode() + b"\n\n"
    path = written(tmp_path, gzip.compress(content), "text.txt.gz") if packed else written(tmp_path, content)
    text = source(path, kind=Sentences)
    assert (len(text.train), len(text.valid), len(text.test)) == (96, 2, 2)
    assert set(text.train + text.valid + text.test) == set(LINES)
    assert source(path, kind=Sentences) == text
    assert source(path, seed=1, kind=Sentences) != text
    assert text.name in path
    assert path in text.attribution


def test_a_line_is_a_sentence_however_it_ends() -> None:
    lines = ["a dog runs", "Mr. Smith sleeps.", "No. Never.", "Who is it?", '"Me," he said.', "He left."]
    assert parse("\n".join(lines).encode(), "x") == lines


def test_running_text_is_cut_into_sentences() -> None:
    text = (
        "It was late. Nobody saw\nthe cat, e.g. the\nblack one! It had\ngone (as J. Smith\nsaid). Then 3 dogs came. All\nwere wet.\n"
        "\nA second paragraph\nwithout an end\n\n“Who?” she asked. “Me.” 12 men left.\n"
    )
    assert parse(text.encode(), "x") == [
        "It was late.",
        "Nobody saw the cat, e.g. the black one!",
        "It had gone (as J. Smith said).",
        "Then 3 dogs came.",
        "All were wet.",
        "A second paragraph without an end",
        "“Who?” she asked.",
        "“Me.”",
        "12 men left.",
    ]


@given(st.lists(st.sampled_from(["A b.", "C?", "Dr.", "e f", "1 g!", "(H i.)", "E.g."]), min_size=1))
def test_cutting_loses_nothing(parts: list[str]) -> None:
    text = " ".join(parts)
    assert " ".join(cut(text)) == text


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.integers(0, 9))
def test_a_sentence_is_in_one_split(sentences: list[str], seed: int) -> None:
    parts = split(sentences, seed, 0.2)
    assert sorted(sentence for part in parts for sentence in part) == sorted(set(sentences))
    assert parts == split(sentences, seed, 0.2)


def test_sentences_that_differ_in_case_and_blanks_are_in_the_same_split() -> None:
    for part in split([f"{article} cat {i}" for i in range(50) for article in ("The", "the", "the ")], 0):
        assert len(part) % 3 == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "text.txt: the file is empty; expected one sentence a line, or running text"),
        ("\n \n", "the file is empty"),
        ("a\nb\n", "text.txt: too few sentences; at least 3 different ones are needed"),
        ("a\n" * 9, "too few sentences"),
        ("a cat\na dog\tun chien\n", r"text.txt, line 2: there is a tab; expected sentences alone"),
        ("a\n\n\u00ad\u200b\n", "text.txt, line 3: no word and no mark in "),
        (b"a\nun caf\xe9\n", r"text.txt, line 2: not UTF-8 \(byte 0xe9 at position 7\); convert it"),
    ],
)
def test_bad_files(content: bytes | str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=message):
        source(written(tmp_path, content), kind=Sentences)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match="no such file or directory"):
        source(str(tmp_path / "none.txt"), kind=Sentences)
    with pytest.raises(MinirnnError, match="not a gzip file"):
        source(written(tmp_path, "a\nb\nc\n", "text.txt.gz"), kind=Sentences)


MODULE = '''
"""Summary without a full stop

A first sentence.  A second one, of
two lines. It calls f(x) and some_name here.

    >>> print("Code.")

- An item of a list. With `code` and *emphasis* in it.
- Another item

Written by J. Smith in 2024.
"""

class A:
    """Sorts the NUMBERS. Sorts the numbers."""

    async def f(self):
        """Waits."""

def g():
    "Gives x : array_like"
    """No docstring at all."""
'''


def test_the_sentences_of_a_docstring() -> None:
    tree = ast.parse(MODULE)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [sentence for node in nodes for sentence in docstrings.english(ast.get_docstring(node) or "")]
    assert found == [
        "Summary without a full stop.",
        "A first sentence.",
        "A second one, of two lines.",
        "An item of a list.",
        "With code and emphasis in it.",
        "Sorts the numbers.",
    ]


def test_docstrings_are_read_and_nothing_is_imported(tmp_path: Path) -> None:
    for name, content in (
        ("b.py", MODULE),
        ("a.py", '"""Comes first of all."""\nraise SystemExit("was imported")\n'),
        ("bad.py", "def f(:\n"),
        ("nul.py", "\0"),
        ("deep.py", "-" * 100_000 + "1"),
        ("note.txt", "Not Python."),
        ("tests/c.py", '"""A test of no interest."""'),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    found = list(docstrings.docstrings(tmp_path))
    assert found[0] == "Comes first of all."
    assert len(found) == 5
    assert found == list(docstrings.docstrings(tmp_path))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of one file, and an empty cache."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "a.py").write_text('"""The first sentence. The second sentence. The third sentence. The fourth sentence."""')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(docstrings.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(docstrings, "_package", lambda name: library)
    return tmp_path


def test_what_was_read_is_kept(small: Path) -> None:
    first = docstrings.load()
    assert sorted(first.train + first.valid + first.test) == sorted(f"The {n} sentence." for n in ("first", "second", "third", "fourth"))
    (kept,) = (small / "cache" / "minirnn").iterdir()
    (small / "library" / "a.py").unlink()
    assert docstrings.load() == first
    kept.write_text('["cut sh')
    with pytest.raises(MinirnnError, match=r"there are no docstrings in .*library"):
        docstrings.load()


def test_without_a_cache_it_works_too(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "cache").write_text("a file where the folder should be")
    assert docstrings.sentences() == docstrings.sentences()


def test_this_installation_has_thousands_of_sentences_and_importing_them_loads_no_other_module() -> None:
    before = set(sys.modules)
    text = source("docstrings", kind=Sentences)
    new: dict[str, ModuleType] = {name: sys.modules[name] for name in set(sys.modules) - before}
    assert not any(name.startswith(("idlelib", "tkinter", "turtle")) for name in new)
    assert len(text.train) > 5000
    assert not {s.lower() for s in text.train} & {s.lower() for s in text.test + text.valid}
    assert "Python" in text.attribution
    assert "NumPy" in text.attribution


def test_the_english_side_of_tatoeba_is_split_as_the_pairs(data_dir: Path) -> None:
    pairs, sentences = source("tatoeba"), source("tatoeba", kind=Sentences)
    for split_name in ("train", "valid", "test"):
        english = getattr(sentences, split_name)
        assert len(english) == len(set(english))
        assert set(english) == {first for first, _ in getattr(pairs, split_name)}


class Fake:
    def __init__(self, captions: Sequence[str]) -> None:
        self.texts = captions

    def __len__(self) -> int:
        return len(self.texts)

    def images(self, numbers: object) -> NDArray[np.uint8]:
        raise AssertionError("no picture is drawn for its caption")

    def captions(self, number: int) -> tuple[str, ...]:
        return self.texts[number], "another"


def test_captions_once_each_and_none_of_the_training_in_the_test() -> None:
    pictures = CaptionedPictures("p", Fake(["a", "b", "a"]), Fake(["a", "c"]), Fake(["c", "d", "d"]), "whom")
    assert captions(pictures) == Sentences("p", ["a", "b"], ["c"], ["d"], "whom")
    with pytest.raises(MinirnnError, match=r"p: .*captions"):
        captions(CaptionedPictures("p", Fake(["a", "b", "a"]), Fake(["a"]), Fake(["c"]), "whom"))


def test_a_source_of_another_kind_is_refused() -> None:
    with pytest.raises(MinirnnError, match=r"cldr holds .*, but sentences are needed: .*docstrings.*, or a text file by its path"):
        source("cldr", kind=Sentences)
