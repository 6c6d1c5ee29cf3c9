"""Files that are whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minirnn.errors import MinirnnError

LOCK_NAME = ".lock"

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    The bytes go to a temporary file in the same folder, reach the disk, and are then renamed: a reader sees the old file or the new
    one, never a part. A link is followed. Raises MinirnnError where the file cannot be written; if the disk is full, with what is free.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        if error.filename not in (None, str(temporary)):  # another file's trouble, raised inside the block
            raise
        raise MinirnnError(f"cannot write {os.fspath(path)}: {_reason(error, target.parent)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Make `data` (text as UTF-8) the content of the file `path`, all of it or nothing: see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def lock_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep every other process from locking the folder `path` for the length of the block; the folder is made if it is not there.

    The lock belongs to the process and not to the file that carries it, so that a crash releases it.
    Raises MinirnnError, with the number of the process that holds the lock, where the folder is taken.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MinirnnError(f"cannot write to the folder {folder}: {_reason(error, folder)}") from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another process"
            raise MinirnnError(f"{folder} is being written by {holder}: wait for it, stop it, or name another folder") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    _BEYOND = 1 << 30  # a locked byte cannot be read by others, so it lies past the holder's number

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

    def _flush_folder(folder: Path) -> None:
        """Windows writes the folder's entry with the file."""

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _flush_folder(folder: Path) -> None:
        """A rename is on the disk once its folder is."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot, and the file is in its place already
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError, folder: Path) -> str:
    if error.errno in _FULL:
        import shutil  # slow to import, and seldom asked for

        return f"the disk is full ({shutil.disk_usage(folder).free / 2**20:,.1f} MiB free in {folder}); what was there before is untouched"
    if isinstance(error, FileNotFoundError):
        return f"there is no folder {folder}"
    return error.strerror or str(error)
