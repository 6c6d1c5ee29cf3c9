from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minirnn.data import images, source
from minirnn.data.kinds import CaptionedPictures, Pictures
from minirnn.data.sources import picture_folder
from minirnn.data.sources.picture_folder import load
from minirnn.errors import MinirnnError

pytest.importorskip("PIL", reason="pictures need Pillow (pip install 'minirnn[demo]')")

COUNT = 20


def picture(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise of a size of its own."""
    return np.random.default_rng(number).integers(0, 256, (3, 20 + number, 64), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures and captions.txt: two captions each, the first of them with a comma."""
    lines = ["image,caption"]
    for n in range(COUNT):
        images.write(tmp_path / f"{n}.png", picture(n))
        lines += [f"{n}.png,Picture {n}, of noise .", f'{n}.png,"They say ""{n}"""']
    (tmp_path / "captions.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def everything(data: CaptionedPictures) -> list[tuple[Pictures, int]]:
    return [(part, number) for part in (data.train, data.valid, data.test) for number in range(len(part))]


def number_of(captions: tuple[str, ...]) -> int:
    return int(captions[0].split()[1].rstrip(","))


def test_every_picture_is_in_one_split_with_its_captions(folder: Path) -> None:
    data = source(str(folder), kind=CaptionedPictures)
    assert (len(data.train), len(data.valid), len(data.test)) == (16, 2, 2)
    found = sorted((part.captions(number) for part, number in everything(data)), key=number_of)
    assert found == [(f"Picture {n}, of noise .", f'They say "{n}"') for n in range(COUNT)]
    assert data.slots is None
    assert str(folder) in data.attribution


def test_the_pixels_are_those_of_the_files(folder: Path) -> None:
    data = load(folder, size=24)
    for part, number in everything(data):
        n = number_of(part.captions(number))
        np.testing.assert_array_equal(part.images([number])[0], images.read(folder / f"{n}.png", 24))
    assert data.train.images(range(3)).shape == (3, 3, 24, 24)
    assert data.train.images([]).shape == (0, 3, 24, 24)


def test_the_split_follows_the_seed(folder: Path) -> None:
    def held(seed: int) -> set[int]:
        data = load(folder, seed)
        return {number_of(data.test.captions(k)) for k in range(len(data.test))}

    assert held(0) == held(0)
    assert len({frozenset(held(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("room", [0, 5, COUNT])
def test_what_does_not_fit_into_memory_is_decoded_again(room: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_folder, "KEPT", room * 3 * 24 * 24)
    whole = load(folder, size=24).train
    before = whole.images(range(16))
    opened: list[str] = []
    real = images.read
    monkeypatch.setattr(images, "read", lambda path, size: opened.append(str(path)) or real(path, size))
    np.testing.assert_array_equal(whole.images(range(16)), before)
    assert len(opened) == max(0, 16 - room)


def test_the_older_format_and_pictures_in_a_folder_inside(folder: Path) -> None:
    (folder / "Flicker8k_Dataset").mkdir()
    for n in range(COUNT):
        (folder / f"{n}.png").rename(folder / "Flicker8k_Dataset" / f"{n}.png")
    (folder / "captions.txt").unlink()
    lines = [f"{n}.png#{k}\tPicture {n} ,\tsaid {k}\n" for k in range(3) for n in range(COUNT)]
    (folder / "Flickr8k.token.txt").write_text("".join(lines) + "7.png.1#0\tthe seventh\n")
    data = load(folder)
    found = {number_of(part.captions(k)): part.captions(k) for part, k in everything(data) if len(part.captions(k)) == 3}
    assert found == {n: tuple(f"Picture {n} ,\tsaid {k}" for k in range(3)) for n in range(COUNT)}


def test_the_files_of_flickr8k_say_the_split(folder: Path) -> None:
    parts = {"train": [3, 1, 4], "dev": [15], "test": [9, 2, 6]}
    for name, numbers in parts.items():
        (folder / f"Flickr_8k.{name}Images.txt").write_text("".join(f"{n}.png\n" for n in numbers))
    data = load(folder, seed=5)
    for part, numbers in zip((data.train, data.valid, data.test), parts.values(), strict=True):
        assert [number_of(part.captions(k)) for k in range(len(part))] == numbers


def test_a_header_is_not_needed_and_lines_may_come_twice(folder: Path) -> None:
    text = (folder / "captions.txt").read_text().removeprefix("image,caption\n")
    (folder / "captions.txt").write_text("\ufeff" + text.replace("\n", "\r\n") + text)
    assert sorted(number_of(part.captions(k)) for part, k in everything(load(folder))) == list(range(COUNT))
    assert {len(part.captions(k)) for part, k in everything(load(folder))} == {2}


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "captions.txt").read_text()
        assert old in text
        (folder / "captions.txt").write_text(text.replace(old, new, 1))

    return change


def listed(**parts: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name, text in parts.items():
            (folder / f"Flickr_8k.{name}Images.txt").write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "4.png").unlink(), r"captions\.txt, line 10: there is no picture 4\.png in the folder"),
        (
            replaced("3.png,Picture 3,", "3.png Picture 3;"),
            r"captions\.txt, line 8: expected image,caption, found '3\.png Picture 3; of noise \.'",
        ),
        (replaced("3.png,Picture 3, of noise .", "3.png, ."), r"captions\.txt, line 8: expected image,caption, found '3\.png, \.'"),
        (replaced("3.png,", ","), r"captions\.txt, line 8: expected image,caption"),
        (replaced("3.png,", "x" * 5000 + ","), r"captions\.txt, line 8: there is no picture x+ "),
        (
            lambda folder: (folder / "captions.txt").write_text("image,caption\n"),
            r"captions\.txt: the file is empty; expected image,caption",
        ),
        (lambda folder: (folder / "captions.txt").write_bytes(b"image,caption\n1.png,caf\xe9"), r"captions\.txt, line 2: not UTF-8"),
        (
            lambda folder: (folder / "captions.txt").unlink(),
            r"there is no captions\.txt \(lines of image,caption\) and no Flickr8k\.token\.txt",
        ),
        (
            lambda folder: (folder / "captions.txt").write_text("1.png,one\n2.png,two"),
            "too few pictures with captions, 2; at least 3 are needed",
        ),
        (listed(train="1.png\n", dev="77.png\n", test="2.png\n"), r"devImages\.txt, line 1: the picture 77\.png has no caption"),
        (
            listed(train="1.png\n", dev="2.png\n", test="\n1.png\n"),
            r"testImages\.txt, line 2: the picture 1\.png is also in .*trainImages\.txt, line 1",
        ),
        (listed(train="1.png\n", dev="", test="2.png\n"), r"devImages\.txt: the file is empty"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(change: Callable[[Path], None], words: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(MinirnnError, match=words):
        load(folder)


def test_a_broken_picture_is_named_with_its_line(folder: Path) -> None:
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:500])
    with pytest.raises(MinirnnError, match=r"captions\.txt, line 12: .*5\.png: the picture is cut short or damaged"):
        for part, number in everything(load(folder)):
            part.images([number])


def test_numbers_end_with_the_pictures(folder: Path) -> None:
    for number in (-1, 16):
        with pytest.raises(IndexError, match=f"there is no picture {number}; there are 16"):
            load(folder).train.images([number])


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match="there is no such folder"):
        load(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(MinirnnError, match="is a file; expected a folder"):
        load(tmp_path / "file")
