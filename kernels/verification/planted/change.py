"""A change to the text of a kernel's file: a planted bug, which some check must find, or a harmless one, which none may."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BARRIER = re.compile(r"sync(threads|warp)(__)?\(\)|\.sync\(\)")


class Stale(Exception):
    """The text that a change replaces is not in its file any more, or not as often as the change was written for."""


@dataclass(frozen=True)
class Change:
    what: str  # what is wrong, or harmless, for a reader
    file: str  # below kernels/
    old: str
    new: str
    kernel: str  # the cell or operation that runs the text
    dtype: str = "float64"
    harmless: bool = False
    nth: int = 1  # which of `of` places of `old`
    of: int = 1
    wide: bool = False  # only a K of more than 1,024 shows it

    @property
    def language(self) -> str:
        return "numba-cuda" if "numba" in self.file else "CUDA C++"

    @property
    def leaves_out_a_barrier(self) -> bool:
        return bool(BARRIER.search(self.old)) and not BARRIER.search(self.new)

    def applied(self, read: Callable[[Path], str], kernels: Path) -> str:
        """The file's text with the change. Where `old` has white space, the file may have any."""
        text = read(kernels / self.file)
        if not self.old:
            return text
        pattern = r"\s+".join(re.escape(word) for word in self.old.split())
        found = list(re.finditer(pattern, text))
        if len(found) != self.of:
            raise Stale(f'"{self.what}": kernels/{self.file} has the text to replace {len(found)} times in place of {self.of}: {self.old}')
        begin, end = found[self.nth - 1].span()
        return text[:begin] + self.new + text[end:]
