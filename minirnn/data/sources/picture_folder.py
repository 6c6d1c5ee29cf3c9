"""A folder of pictures with their captions, in Flickr8k's formats.

    captions.txt          a line `image,caption`, then such as `dog.jpg,A dog runs, and a cat sleeps.`; commas belong to the caption
    Flickr8k.token.txt    lines of `dog.jpg#0`, tab, caption

A picture may have any number of captions. It lies in the folder or in a folder inside it. If Flickr_8k.trainImages.txt, .devImages.txt and
.testImages.txt are there, with a name on each line, they say which picture is for training, validation and test, and pictures that none
of them names are left out; otherwise a tenth is held out for validation and another one for test.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minirnn.data import images
from minirnn.data.kinds import CaptionedPictures
from minirnn.data.sources.parallel import numbered_lines, read_bytes
from minirnn.errors import MinirnnError

SIZE = 64  # pixels, of a side
KEPT = 512 * 2**20  # bytes of decoded pictures that a split keeps in memory; the rest is decoded whenever it is asked for
HELD_OUT, MOST = 0.1, 1000  # for validation, and for test: the share of the pictures, and how many at the most
SPLIT_FILES = ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt")


class Captioned(NamedTuple):
    """A picture file, all that is said of it, and where the first of that stands."""

    path: Path
    captions: tuple[str, ...]
    where: str


class PictureFiles:
    """A split: pictures that are decoded when they are asked for, and kept.

    Args:
        pictures: the files with their captions.
        size: of a side, in pixels.
    """

    def __init__(self, pictures: Sequence[Captioned], size: int):
        self._pictures, self._size = pictures, size
        room = min(len(pictures), KEPT // (3 * size * size))
        self._kept: NDArray[np.uint8] = np.empty((room, 3, size, size), np.uint8)
        self._decoded = np.zeros(room, bool)

    def __len__(self) -> int:
        return len(self._pictures)

    def images(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, 3, S, S)"""
        found = np.empty((len(numbers), 3, self._size, self._size), np.uint8)
        for n, number in enumerate(numbers):
            found[n] = self._picture(int(number))
        return found

    def captions(self, number: int) -> tuple[str, ...]:
        """The different captions of a picture, in the order of the file."""
        return self._pictures[number].captions

    def _picture(self, number: int) -> NDArray[np.uint8]:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no picture {number}; there are {len(self)}")
        if number < len(self._kept) and self._decoded[number]:
            kept: NDArray[np.uint8] = self._kept[number]
            return kept
        try:
            decoded = images.read(self._pictures[number].path, self._size)
        except MinirnnError as error:
            raise MinirnnError(f"{self._pictures[number].where}: {error}") from None
        if number < len(self._kept):
            self._kept[number], self._decoded[number] = decoded, True
        return decoded


def load(path: str | os.PathLike[str], seed: int = 0, size: int = SIZE) -> CaptionedPictures:
    """The pictures of a folder with their captions.

    Args:
        seed: of the split, where no file says which it is.
        size: of a side of the square pictures, in pixels.

    Raises MinirnnError, with the file and the line, where a line is malformed or a picture that it names is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise MinirnnError(
            f"{folder}: {'is a file; expected' if folder.exists() else 'there is no such folder; expected'} a folder of pictures"
        )
    pictures = _pictures(folder)
    lists = [folder / name for name in SPLIT_FILES]
    parts = _as_listed(pictures, lists) if all(file.is_file() for file in lists) else _drawn(pictures, seed, folder)
    train, valid, test = (PictureFiles(part, size) for part in parts)
    return CaptionedPictures(name=folder.resolve().name, train=train, valid=valid, test=test, attribution=f"the folder {folder}")


def _pictures(folder: Path) -> dict[str, Captioned]:
    """The pictures that have captions, by name."""
    file = _captions_file(folder)
    places = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]
    captions: dict[str, list[str]] = {}
    first: dict[str, tuple[Path, str]] = {}
    for number, name, caption in _lines(file):
        where = f"{file}, line {number}"
        if name not in first:
            first[name] = _find(name, places, where), where
        captions.setdefault(name, []).append(caption)
    if not captions:
        raise MinirnnError(f"{file}: the file is empty; expected {_expected(file)}")
    return {name: Captioned(path, tuple(dict.fromkeys(captions[name])), where) for name, (path, where) in first.items()}


def _captions_file(folder: Path) -> Path:
    found = next(iter([*folder.glob("captions.txt"), *sorted(folder.glob("*.token.txt")), *sorted(folder.glob("*.token"))]), None)
    if found is None:
        raise MinirnnError(f"{folder}: there is no captions.txt (lines of image,caption) and no Flickr8k.token.txt (image#0, tab, caption)")
    return found


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, name of a picture, and caption."""
    tabs = file.name != "captions.txt"
    for number, line in numbered_lines(read_bytes(file), file):
        name, caption = _by_tab(line) if tabs else _by_comma(line)
        if not tabs and number == 1 and (name.lower(), caption.lower()) == ("image", "caption"):
            continue
        if not name or not any(map(str.isalnum, caption)):
            raise MinirnnError(f"{file}, line {number}: expected {_expected(file)}, found {line[:60]!r}")
        yield number, name, caption


def _by_comma(line: str) -> tuple[str, str]:
    """Name and caption; quotes around a caption go, commas in it stay."""
    try:
        name, *caption = next(csv.reader([line]))
    except csv.Error:
        return "", ""
    return name.strip(), ",".join(caption).strip()


def _by_tab(line: str) -> tuple[str, str]:
    name, _, caption = line.partition("\t")
    return re.sub(r"#\d+$", "", name.strip()), caption.strip()


def _expected(file: Path) -> str:
    return "image,caption" if file.name == "captions.txt" else "image#0, tab, caption"


def _find(name: str, places: Iterable[Path], where: str) -> Path:
    """Flickr8k.token.txt writes one of its names with .1 after .jpg, so such an ending may be missing from the file."""
    for candidate in (name, re.sub(r"\.\d+$", "", name)):
        for place in places:
            if os.path.isfile(place / candidate):  # False, too, for a name that no file can have
                return place / candidate
    raise MinirnnError(f"{where}: there is no picture {name} in the folder, nor in one inside it")


def _as_listed(pictures: dict[str, Captioned], lists: Sequence[Path]) -> list[list[Captioned]]:
    """Train, valid and test as files have them."""
    parts: list[list[Captioned]] = []
    place: dict[str, str] = {}
    for file in lists:
        parts.append([])
        for number, line in numbered_lines(read_bytes(file), file):
            name, where = line.strip(), f"{file}, line {number}"
            if name not in pictures:
                raise MinirnnError(f"{where}: the picture {name} has no caption")
            if name in place:
                raise MinirnnError(f"{where}: the picture {name} is also in {place[name]}")
            place[name] = where
            parts[-1].append(pictures[name])
        if not parts[-1]:
            raise MinirnnError(f"{file}: the file is empty; expected the name of a picture on each line")
    return parts


def _drawn(pictures: dict[str, Captioned], seed: int, folder: Path) -> list[list[Captioned]]:
    """Train, valid and test as the seed has them."""
    if len(pictures) < 3:
        raise MinirnnError(f"{folder}: too few pictures with captions, {len(pictures)}; at least 3 are needed, one for each split")
    every = list(pictures.values())
    shuffled = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
    held = min(MOST, max(1, round(HELD_OUT * len(every))))
    return [shuffled[2 * held :], shuffled[:held], shuffled[held : 2 * held]]
