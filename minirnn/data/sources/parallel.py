"""What every source of translations gives, and how sentence pairs are read and split."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from minirnn.errors import MinirnnError

Pair = tuple[str, str]


class Splits(NamedTuple):
    """Pairs to learn from, to choose by, and to judge with."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]


@dataclass(frozen=True)
class ParallelText:
    """Sentence pairs (source, target) for training, validation and test.

    Args:
        name: of the source, or of the file.
        languages: what is translated into what, as ("English", "French").
        attribution: whom to credit and under which terms; to be shown with the data.
        note: what one should know before one trusts a score on it; may be empty.
    """

    what: ClassVar[str] = "sentence pairs"

    name: str
    languages: tuple[str, str]
    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    attribution: str
    note: str = ""


def split_by_source(pairs: Iterable[Pair], seed: int, valid: float = 0.02, test: float = 0.02, most: int = 2000) -> Splits:
    """Distinct pairs for training, validation and test, in an order that `seed` decides; a source sentence is in one of them only.

    Args:
        valid, test: the share of the source sentences, at least one sentence and at most `most`.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        groups.setdefault(" ".join(pair[0].lower().split()), []).append(pair)
    keys = list(groups)
    order = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    n_valid, n_test = (min(most, max(1, round(share * len(order)))) for share in (valid, test))
    test_keys, valid_keys, train_keys = order[:n_test], order[n_test : n_test + n_valid], order[n_test + n_valid :]
    return Splits(*([pair for key in part for pair in groups[key]] for part in (train_keys, valid_keys, test_keys)))


def numbered_lines(data: bytes, path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text with their numbers from 1, empty lines left out."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            raise MinirnnError(
                f"{os.fspath(path)}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start + 1}); "
                f"convert it, as with: iconv -f ISO-8859-1 -t UTF-8"
            ) from None
        if line.strip():
            yield number, line


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, unpacked if its name ends with `.gz`."""
    try:
        data = Path(path).read_bytes()
        return gzip.decompress(data) if os.fspath(path).endswith(".gz") else data
    except (EOFError, zlib.error) as error:
        raise MinirnnError(f"{os.fspath(path)}: the compressed file is cut short or damaged ({error})") from None
    except gzip.BadGzipFile as error:
        raise MinirnnError(f"{os.fspath(path)}: not a gzip file ({error})") from None
    except OSError as error:
        raise MinirnnError(f"{os.fspath(path)}: {(error.strerror or str(error)).lower()}") from None
