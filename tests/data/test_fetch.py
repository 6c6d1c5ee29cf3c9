from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from minirnn.data import DataFile, cache_folder, fetch
from minirnn.errors import MinirnnError

CONTENT = b"one sentence\n" * 100
WRONG = b"another sentence\n" * 100


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MINIRNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "minirnn"


def published(tmp_path: Path, content: bytes = CONTENT) -> DataFile:
    """A data file that is to have CONTENT, where `content` is what its address gives."""
    place = tmp_path / "published.gz"
    place.write_bytes(content)
    return DataFile("set/file.gz", sha(CONTENT), len(CONTENT), (place.as_uri(),))


def missing(tmp_path: Path) -> DataFile:
    return DataFile("set/file.gz", sha(CONTENT), len(CONTENT), ((tmp_path / "nowhere.gz").as_uri(),))


@pytest.mark.parametrize("place", ["set/file.gz", "file.gz"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_folder_of_the_users_comes_first(place: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    if by == "environment":
        monkeypatch.setenv("MINIRNN_DATA", str(tmp_path / "mine"))
    assert fetch(missing(tmp_path), tmp_path / "mine" if by == "argument" else None) == path


def test_a_download_is_kept_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    assert cache_folder() == own_cache
    file = published(tmp_path)
    path = fetch(file)
    assert path == own_cache / "set" / "file.gz"
    assert path.read_bytes() == CONTENT
    (tmp_path / "published.gz").unlink()
    assert fetch(file) == path
    assert [p.name for p in path.parent.iterdir()] == ["file.gz"]


def test_without_a_home_the_cache_is_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(MinirnnError, match=r"there is no folder for the cache .*: name one in XDG_CACHE_HOME"):
        cache_folder()


def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path: Path) -> None:
    file = published(tmp_path)
    fetch(file).write_bytes(CONTENT[:-1])
    assert fetch(file).read_bytes() == CONTENT


def test_the_next_address_is_tried(tmp_path: Path) -> None:
    good, bad = published(tmp_path), missing(tmp_path)
    file = DataFile(good.path, good.sha256, good.size, (*bad.urls, *good.urls))
    assert fetch(file).read_bytes() == CONTENT


def test_a_file_cut_short_in_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "file.gz").write_bytes(CONTENT[:50])
    with pytest.raises(MinirnnError) as error:
        fetch(published(tmp_path), tmp_path)
    message = str(error.value)
    for part in (
        str(tmp_path / "file.gz"),
        "50 of 1,300 bytes",
        "cut short",
        sha(CONTENT[:50]),
        sha(CONTENT),
        "Remove it or replace it by file:",
    ):
        assert part in message


def test_another_file_in_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "file.gz").write_bytes(WRONG)
    with pytest.raises(MinirnnError) as error:
        fetch(published(tmp_path), tmp_path)
    assert sha(WRONG) in str(error.value)
    assert sha(CONTENT) in str(error.value)
    assert "cut short" not in str(error.value)


def test_a_wrong_download_leaves_nothing_behind(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(MinirnnError, match=rf"what came is not the expected file.*{sha(WRONG)}"):
        fetch(published(tmp_path, WRONG))
    assert list((own_cache / "set").iterdir()) == []


def test_what_is_nowhere(tmp_path: Path, own_cache: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(MinirnnError) as error:
        fetch(missing(tmp_path), mine)
    message = str(error.value)
    looked = [mine / "set" / "file.gz", mine / "file.gz", own_cache / "set" / "file.gz"]
    assert f"missing data file set/file.gz; looked for {', '.join(map(str, looked))}; download failed" in message
    assert "nowhere.gz" in message
    assert f"save {missing(tmp_path).urls[0]} as {looked[-1]}" in message
    assert "--data-dir or MINIRNN_DATA" in message
    assert "\n" not in message


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MinirnnError, match=r"--data-dir: .*absent is not a folder"):
        fetch(missing(tmp_path), tmp_path / "absent")
    monkeypatch.setenv("MINIRNN_DATA", str(tmp_path / "absent"))
    with pytest.raises(MinirnnError, match=r"MINIRNN_DATA: .*absent is not a folder"):
        fetch(missing(tmp_path))


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(MinirnnError, match=r"cannot make the cache folder .*Name another one in XDG_CACHE_HOME"):
        fetch(published(tmp_path))
