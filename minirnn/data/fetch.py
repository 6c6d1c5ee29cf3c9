"""Data files: in a folder of the user's, in the cache, or from the network, and always whole."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minirnn.errors import MinirnnError
from minirnn.files import atomic_file

CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class DataFile:
    """A published file.

    Args:
        path: where it lies in a data folder, as `multi30k/train.en.gz`.
        sha256: its checksum, 64 hexadecimal digits.
        size: its length in bytes.
        urls: where it can be had, tried in this order.
    """

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...]


def cache_folder() -> Path:
    """`minirnn` in the user's cache folder: $XDG_CACHE_HOME, or ~/.cache. Raises MinirnnError where there is no such folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minirnn"
    except RuntimeError as error:
        raise MinirnnError(f"there is no folder for the cache ({error}): name one in XDG_CACHE_HOME") from error


def fetch(file: DataFile, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The place of a data file on this machine, checked against its checksum; downloads it if it is nowhere.

    Looks in `data_dir`, then in the folder that $MINIRNN_DATA names, then in the cache, each time for `multi30k/train.en.gz` and for
    `train.en.gz`. A wrong file in a folder of the user's is an error; a wrong file in the cache is downloaded again.
    """
    looked = []
    for folder in _user_folders(data_dir):
        for path in (folder / file.path, folder / Path(file.path).name):
            looked.append(path)
            if path.is_file():
                _check(path, file)
                return path
    cached = cache_folder() / file.path
    looked.append(cached)
    if not cached.is_file() or _fault(cached, file):
        _download(file, cached, looked)
    return cached


def _user_folders(data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    for folder, given_by in ((data_dir, "--data-dir"), (os.environ.get("MINIRNN_DATA"), "MINIRNN_DATA")):
        if folder:
            if not Path(folder).is_dir():
                raise MinirnnError(f"{given_by}: {os.fspath(folder)} is not a folder")
            yield Path(folder)


def _check(path: Path, file: DataFile) -> None:
    fault = _fault(path, file)
    if fault:
        raise MinirnnError(f"{path} is not the expected file: {fault}. Remove it or replace it by {file.urls[0]}")


def _fault(path: Path, file: DataFile) -> str:
    """What is wrong with the file, or nothing."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return _mismatch(digest.hexdigest(), size, file)


def _mismatch(sha256: str, size: int, file: DataFile) -> str:
    if sha256 == file.sha256:
        return ""
    cut = f"it has {size:,} of {file.size:,} bytes and was cut short; " if size < file.size else ""
    return f"{cut}its SHA-256 is {sha256}, it should be {file.sha256}"


def _download(file: DataFile, target: Path, looked: list[Path]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MinirnnError(f"cannot make the cache folder {target.parent}: {error.strerror}. Name another one in XDG_CACHE_HOME") from error
    faults = []
    for url in file.urls:
        try:
            _copy(url, file, target)
            return
        except _CannotFetch as error:
            faults.append(f"{url}: {error}")
    raise MinirnnError(
        f"missing data file {file.path}; looked for {', '.join(map(str, looked))}; download failed ({'; '.join(faults)}). "
        f"To put it there by hand, save {file.urls[0]} as {target}, or name its folder with --data-dir or MINIRNN_DATA"
    )


class _CannotFetch(Exception):
    """One address does not give the file."""


def _copy(url: str, file: DataFile, target: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with atomic_file(target) as out, _progress(file) as advance:
        for block in _blocks(url):
            out.write(block)
            digest.update(block)
            size += len(block)
            advance(len(block))
        fault = _mismatch(digest.hexdigest(), size, file)
        if fault:
            raise _CannotFetch(f"what came is not the expected file: {fault}")


def _blocks(url: str) -> Iterator[bytes]:
    import urllib.request  # here, because it is slow to import
    from http.client import HTTPException

    try:
        request = urllib.request.Request(url, headers={"User-Agent": "minirnn"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            while block := answer.read(CHUNK):
                yield block
    except (OSError, HTTPException) as error:
        raise _CannotFetch(str(getattr(error, "reason", "") or error)) from error


@contextmanager
def _progress(file: DataFile) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.path, total=file.size)
        yield lambda count: bar.advance(task, count)
