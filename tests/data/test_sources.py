from __future__ import annotations

import gzip
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import ParallelText, WordVocabulary, all_sources, get, source
from minirnn.data.sources import tatoeba
from minirnn.data.sources.parallel import split_by_source
from minirnn.errors import MinirnnError

LINES = "".join(f"sentence {i}\tphrase {i}\tignored\n" for i in range(100))


def written(tmp_path: Path, content: bytes | str, name: str = "pairs.tsv") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.text("xyz", max_size=3)), min_size=1), st.integers(0, 9))
def test_a_split_loses_nothing_and_keeps_a_source_together(pairs: list[tuple[str, str]], seed: int) -> None:
    splits = split_by_source(pairs, seed, valid=0.2, test=0.2)
    assert sorted(pair for part in splits for pair in part) == sorted(set(pairs))
    train, valid, test = ({source for source, _ in part} for part in splits)
    assert not train & valid
    assert not train & test
    assert not valid & test
    assert splits == split_by_source(pairs, seed, valid=0.2, test=0.2)


def test_a_split_has_the_asked_size_and_follows_the_seed() -> None:
    pairs = [(str(i), "x") for i in range(1000)]
    assert [len(part) for part in split_by_source(pairs, 0, valid=0.1, test=0.05)] == [850, 100, 50]
    assert [len(part) for part in split_by_source(pairs, 0, valid=0.5, test=0.5, most=30)] == [940, 30, 30]
    assert split_by_source(pairs, 0) != split_by_source(pairs, 1)


def test_sources_that_differ_in_case_and_blanks_are_one() -> None:
    pairs = [(f"{article} cat {i}", article) for i in range(50) for article in ("The", "the", "the ")]
    for part in split_by_source(pairs, 0):
        assert len(part) % 3 == 0


@pytest.mark.parametrize("packed", [False, True])
def test_a_tab_separated_file(packed: bool, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode() + b"\n\n"
    path = written(tmp_path, gzip.compress(content), "pairs.tsv.gz") if packed else written(tmp_path, content)
    text = source(path)
    assert (len(text.train), len(text.valid), len(text.test)) == (96, 2, 2)
    assert set(text.train + text.valid + text.test) == {(f"sentence {i}", f"phrase {i}") for i in range(100)}
    assert source(path) == text
    assert source(path, seed=1) != text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nno tab here\n", "pairs.tsv, line 2: expected source, tab, target; found no tab in 'no tab here'"),
        ("a\tb\n" + "x" * 100, "line 2: .* found no tab in 'x{59}…'"),
        ("a\tb\n\n\tc\n", "line 3: the source is empty in "),
        ("a\t \tc\n", "line 1: the target is empty in "),
        ("a\tb\n\u00ad\u200b\tc\n", "line 2: the source is empty in "),  # nothing that can be seen
        ("a\t\ufeff\n", "line 1: the target is empty in "),
        ("", "pairs.tsv: the file is empty; expected lines of source, tab, target"),
        ("\n \n", "the file is empty"),
        ("a\tb\nc\td\n", "too few pairs; at least 3 different source sentences are needed"),
        ("a\tb\n" * 9, "too few pairs"),
        (b"a\tb\nun caf\xe9\tx\n", r"pairs.tsv, line 2: not UTF-8 \(byte 0xe9 at position 7\); convert it"),
        ("a\tb\n".encode("utf-16"), r"line 1: not UTF-8 \(byte 0xff at position 1\)"),
    ],
)
def test_bad_files(content: bytes | str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=message):
        source(written(tmp_path, content))


def test_bad_compressed_files(tmp_path: Path) -> None:
    whole = gzip.compress(LINES.encode())
    with pytest.raises(MinirnnError, match=r"pairs.gz: the compressed file is cut short or damaged"):
        source(written(tmp_path, whole[: len(whole) // 2], "pairs.gz"))
    with pytest.raises(MinirnnError, match=r"pairs.gz: the compressed file is cut short or damaged"):
        source(written(tmp_path, whole[:40] + b"\xff" * 20 + whole[60:], "pairs.gz"))
    with pytest.raises(MinirnnError, match=r"pairs.gz: not a gzip file"):
        source(written(tmp_path, LINES, "pairs.gz"))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"unknown data set 'tatoba'; did you mean tatoeba. There are cldr, tatoeba, multi30k,"):
        source("tatoba")
    with pytest.raises(
        MinirnnError,
        match=r"unknown data set 'zzz'. There are cldr, tatoeba, multi30k, or a tab-separated file of source and target by its path",
    ):
        source("zzz")
    with pytest.raises(MinirnnError, match="unknown data set 'zzz'"):
        get("zzz")
    with pytest.raises(MinirnnError, match=r"absent.tsv: no such file or directory"):
        source(str(tmp_path / "absent.tsv"))
    with pytest.raises(MinirnnError, match="is a folder, but sentence pairs are needed: cldr, tatoeba, multi30k, or a tab-separated file"):
        source(str(tmp_path))


def test_every_source_says_what_it_is() -> None:
    assert {"cldr", "tatoeba", "multi30k"} <= {entry.name for entry in all_sources()}
    for entry in all_sources():
        assert all((entry.what, entry.size, entry.licence, entry.origin, entry.loaders))
        for file in entry.files:
            assert file.urls
            assert len(file.sha256) == 64
    assert get("cldr") == []


def disjoint(text: ParallelText) -> bool:
    train, valid, test = ({pair[0] for pair in part} for part in (text.train, text.valid, text.test))
    return not (train & valid or train & test or valid & test)


def test_tatoeba(data_dir: Path) -> None:
    text = source("tatoeba", data_dir)
    assert len(text.train) + len(text.valid) + len(text.test) == 142_782  # of 142,787 lines five are there twice
    assert disjoint(text)
    assert len({pair[0] for pair in text.test}) > 1900
    assert ("Go.", "Va !") in text.train + text.valid + text.test


def test_an_archive_without_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other.txt", "")
    for content in (buffer.getvalue(), b"no archive"):
        path = Path(written(tmp_path, content, "fra-eng.zip"))
        monkeypatch.setattr(tatoeba, "fetch", lambda file, data_dir, path=path: path)
        with pytest.raises(MinirnnError, match=r"fra-eng.zip: cannot read fra.txt in it"):
            tatoeba.load()


def test_multi30k(data_dir: Path) -> None:
    text = source("multi30k", data_dir)
    assert (len(text.train), len(text.valid)) == (29_000, 1_014)
    assert text.test == text.valid
    assert "validation" in text.note
    assert text.train[0] == (
        "Two young, White males are outside near many bushes.",
        "Deux jeunes hommes blancs sont dehors près de buissons.",
    )
    # Counted by an independent program on the same split into words: 6,433 French words seen twice or more.
    assert len(WordVocabulary.build(french for _, french in text.train)) == 6_433 + 4


def test_a_multi30k_file_cut_short(data_dir: Path, tmp_path: Path) -> None:
    for file in next(entry for entry in all_sources() if entry.name == "multi30k").files:
        content = (data_dir / file.path).read_bytes()
        (tmp_path / Path(file.path).name).write_bytes(content[:1000] if file.path.endswith("train.fr.gz") else content)
    with pytest.raises(MinirnnError, match=r"train.fr.gz is not the expected file: it has 1,000 of 604,242 bytes and was cut short"):
        source("multi30k", tmp_path)


def test_files_of_the_folder_are_those_that_are_published(data_dir: Path) -> None:
    for entry in all_sources():
        for file, path in zip(entry.files, get(entry.name, data_dir), strict=True):
            assert path.stat().st_size == file.size


def test_a_text_is_what_its_splits_are() -> None:
    text = ParallelText("x", ("a", "b"), [("1", "2")], [], [], "")
    assert replace(text, name="y").train == text.train
